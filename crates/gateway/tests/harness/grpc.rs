//! gRPC by hand: the bytes of messages, and the calls of a client.

use base::Tasks;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;

use super::{Executor, Gateway};

pub(crate) struct Reply {
    pub(crate) headers: HeaderMap,
    pub(crate) message: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl Reply {
    pub(crate) fn status(&self) -> (&str, &str) {
        let find = |name: &str| {
            let value = self.trailers.get(name).or_else(|| self.headers.get(name));
            value.map_or("", |value| value.to_str().unwrap())
        };
        (find("grpc-status"), find("grpc-message"))
    }
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

pub(crate) async fn call(gateway: &Gateway, method: &str, message: &[u8]) -> Reply {
    let path = format!("inference.GRPCInferenceService/{method}");
    send(gateway, &path, None, Full::<Bytes>::from(framed(message))).await
}

pub(crate) async fn send<B>(gateway: &Gateway, path: &str, encoding: Option<&str>, body: B) -> Reply
where
    B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    whole(begin(gateway, path, &[("grpc-encoding", encoding.unwrap_or("identity"))], body).await).await
}

/// All of an answer.
pub(crate) async fn whole((response, _connection): (Response<Incoming>, Tasks)) -> Reply {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Reply { headers: parts.headers, message: body.to_bytes().to_vec(), trailers }
}

/// The head of the answer to a call with these headers, and the tasks of its connection.
pub(crate) async fn begin<B>(
    gateway: &Gateway,
    path: &str,
    headers: &[(&str, &str)],
    body: B,
) -> (Response<Incoming>, Tasks)
where
    B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let stream = gateway.raw().await;
    let tasks = Tasks::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(Executor(tasks.clone()), TokioIo::new(stream)).await.unwrap();
    tasks.spawn(connection);
    let mut request = Request::post(format!("http://{}/{path}", gateway.addr))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200, "gRPC says everything in its own status");
    (response, tasks)
}

/// A body in pieces of some bytes.
pub(crate) fn pieces(
    bytes: &[u8],
    size: usize,
) -> impl http_body::Body<Data = Bytes, Error = std::io::Error> + Unpin + use<> {
    let frames: Vec<_> = bytes.chunks(size).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    StreamBody::new(futures::stream::iter(frames))
}

/// The messages of a stream, in order.
pub(crate) fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let [_, a, b, c, d, rest @ ..] = stream {
        let (message, after) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        found.push(message);
        stream = after;
    }
    found
}

/// Field 1, the model's name, and some more.
pub(crate) fn infer(name: &str) -> Vec<u8> {
    let mut message = vec![0x0a, u8::try_from(name.len()).unwrap()];
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(&[0x1a, 2, b'i', b'd']);
    message
}
