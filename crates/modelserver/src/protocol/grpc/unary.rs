//! The hot path: one prediction, one plain message in and one out.
//!
//! It does by hand what little of gRPC such a call needs (a prefix of five bytes, a trailer), without the buffers
//! and layers that streams and compression take. A compressed message goes the usual way.
//!
//! **Invariant:** a message that came in one piece is not copied; its raw tensors are slices of it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use inference::IGNORED_FIELDS;
use prost::Message as _;
use tonic::{Status, body::Body as GrpcBody};

use super::{
    infer::{ignored_header, infer},
    messages::{
        PREFIX,
        proto::{ModelInferRequest, ModelInferResponse},
    },
    reading::Reading,
};
use crate::{
    protocol::{
        app::App,
        budget::{Arriving, Budget},
    },
    run::caller::Caller,
};

/// Memory set aside for a message before all of it has come.
const FIRST: usize = 256 << 10;

/// Whether a request can be answered here.
pub(super) fn is_plain<B>(request: &http::Request<B>) -> bool {
    request.headers().get("grpc-encoding").is_none_or(|encoding| encoding == "identity")
}

/// Predicts.
pub(super) async fn answer(app: Arc<App>, caller: Caller, request: http::Request<Incoming>) -> Response<GrpcBody> {
    predict(&app, caller, request.into_body()).await.unwrap_or_else(Status::into_http)
}

async fn predict(app: &App, caller: Caller, mut body: Incoming) -> Result<Response<GrpcBody>, Status> {
    let longest = Duration::from_millis(app.config.request_timeout_ms);
    let mut arriving = app.budget.arriving();
    let reading = Reading::new(&app.metrics);
    let read = tokio::time::timeout(longest, read(app, &mut body, &mut arriving)).await.unwrap_or_else(|_| {
        let millis = longest.as_millis();
        Err(Status::deadline_exceeded(format!("the message took longer than {millis} ms (serve.request_timeout_ms)")))
    });
    let message = read.inspect_err(|status| reading.broke_off(status))?;
    reading.complete();
    let hold = arriving.complete()?;
    let request = ModelInferRequest::decode(message)
        .map_err(|error| Status::invalid_argument(format!("the message is no ModelInferRequest: {error}")))?;
    let (response, ignored) = infer(app, caller, request).await?;
    drop(hold);
    let kept = app.budget.keep(frame(&response)).map_err(|spent| Status::resource_exhausted(spent.to_string()))?;
    let mut answer = Response::new(GrpcBody::new(Single(Next::Data(kept))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(names) = ignored_header(&ignored) {
        answer.headers_mut().insert(IGNORED_FIELDS, names);
    }
    Ok(answer)
}

/// All of the one message, and the end of the request.
async fn read(app: &App, body: &mut Incoming, arriving: &mut Arriving<&Budget>) -> Result<Bytes, Status> {
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    let mut size = 0;
    loop {
        let data = tokio::select! {
            biased;
            data = next(body) => data?,
            why = arriving.refused() => return Err(why.into()),
        };
        let Some(data) = data else { break };
        size += data.len();
        arriving.cover(size)?;
        if whole.is_empty() && pieces.is_empty() {
            whole = data;
            if whole.len() >= PREFIX {
                check(length(&whole)?, size, app.config.body_limit_bytes)?;
            }
            continue;
        }
        if pieces.is_empty() {
            let wanted = if whole.len() >= PREFIX { PREFIX + length(&whole)? } else { 0 };
            pieces.reserve(wanted.clamp(size, FIRST.max(size)));
            pieces.extend_from_slice(&whole);
            whole = Bytes::new();
        }
        pieces.extend_from_slice(&data);
        if pieces.len() >= PREFIX {
            check(length(&pieces)?, size, app.config.body_limit_bytes)?;
        }
    }
    if !pieces.is_empty() {
        whole = pieces.freeze();
    }
    if whole.len() < PREFIX || whole.len() < PREFIX + length(&whole)? {
        return Err(Status::invalid_argument("the request ends in the middle of its message"));
    }
    Ok(whole.slice(PREFIX..))
}

/// The next piece of data, if there is one.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Status> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(Status::cancelled(format!("the message broke off: {error}"))),
            // Trailers say nothing here.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                Ok(_) | Err(_) => {}
            },
        }
    }
}

/// The length that the prefix of a message gives it.
fn length(bytes: &[u8]) -> Result<usize, Status> {
    match bytes.first_chunk::<PREFIX>() {
        Some([0, length @ ..]) => Ok(u32::from_be_bytes(*length) as usize),
        _ => Err(Status::internal(api::words::COMPRESSION_UNNAMED)),
    }
}

/// Refuses a message that is too large, or that is not alone.
fn check(length: usize, read: usize, limit: usize) -> Result<(), Status> {
    if length > limit {
        return Err(Status::resource_exhausted(format!(
            "the message has {length} bytes, and {limit} are allowed (serve.body_limit_bytes)"
        )));
    }
    if read > PREFIX + length {
        return Err(Status::invalid_argument("there is more than one message in a request that has one"));
    }
    Ok(())
}

/// A message as it goes over the wire.
fn frame(message: &ModelInferResponse) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    // What is longer would not have fitted into memory as a tensor of a request either.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

/// A message, and the trailer that says that all went well.
struct Single(Next);

enum Next {
    Data(Bytes),
    Trailers,
    End,
}

impl Body for Single {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match std::mem::replace(&mut self.0, Next::End) {
            Next::Data(bytes) => {
                self.0 = Next::Trailers;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Next::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Next::End => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Next::End)
    }

    /// Not told: a length in the headers would be without the trailers' frame.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
