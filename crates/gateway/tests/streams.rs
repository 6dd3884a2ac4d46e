//! Streams whose messages are for several models, before replicas that answer byte for byte as a test says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::{
    future::Future,
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::route::RouteReplica;
use base::Tasks;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{SinkExt as _, channel::mpsc};
use h2::{RecvStream, SendStream, server::SendResponse};
use harness::{
    Control, Executor, Gateway, Manner, Replica, eventually,
    grpc::{framed, infer},
    route,
};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::Notify};

const PATIENCE: Duration = Duration::from_secs(20);

/// A replica that answers each call as a script says.
struct Scripted {
    address: RouteReplica,
    calls: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    /// The head of the last call.
    seen: Arc<Mutex<HeaderMap>>,
    /// Ends its connections.
    close: Arc<Notify>,
    _named: Replica,
    _tasks: Tasks,
}

impl Scripted {
    async fn start<F>(
        name: &'static str,
        script: impl Fn(RecvStream, SendResponse<Bytes>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let named = Replica::start(name, Manner::Grpc).await;
        let mut address = named.route();
        address.address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let tasks = Tasks::new();
        let scripted = Self {
            address,
            calls: Arc::default(),
            connections: Arc::default(),
            seen: Arc::default(),
            close: Arc::default(),
            _named: named,
            _tasks: tasks.clone(),
        };
        let (calls, connections) = (Arc::clone(&scripted.calls), Arc::clone(&scripted.connections));
        let (seen, close) = (Arc::clone(&scripted.seen), Arc::clone(&scripted.close));
        tasks.clone().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, spawner, seen) = (script.clone(), tasks.clone(), Arc::clone(&seen));
                let (calls, connections, close) = (Arc::clone(&calls), Arc::clone(&connections), Arc::clone(&close));
                tasks.spawn(async move {
                    // A probe of the gateway speaks no HTTP/2.
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    connections.fetch_add(1, Ordering::SeqCst);
                    loop {
                        let (request, respond) = tokio::select! {
                            call = connection.accept() => match call {
                                Some(Ok(call)) => call,
                                Some(Err(_)) | None => return,
                            },
                            () = close.notified() => return,
                        };
                        let (parts, body) = request.into_parts();
                        *seen.lock().unwrap() = parts.headers;
                        calls.fetch_add(1, Ordering::SeqCst);
                        spawner.spawn(script(body, respond));
                    }
                });
            }
        });
        scripted
    }

    /// Sends each message back, compressed by gzip if the call says that it may be, or if it must.
    async fn echo(name: &'static str, compresses: bool) -> Self {
        Self::start(name, move |mut body, mut respond| async move {
            let head = Response::builder().header("content-type", "application/grpc");
            let head = if compresses { head.header("grpc-encoding", "gzip") } else { head };
            let Ok(mut answer) = respond.send_response(head.body(()).unwrap(), false) else { return };
            while let Some(Ok(data)) = body.data().await {
                let _freed = body.flow_control().release_capacity(data.len());
                if data.is_empty() {
                    continue;
                }
                let message = if compresses { packed(&data[5..]).into() } else { data };
                let _sent = answer.send_data(message, false);
            }
            end(answer);
        })
        .await
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

fn end(mut answer: SendStream<Bytes>) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let _sent = answer.send_trailers(trailers);
}

fn packed(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(message).unwrap();
    let mut packed = framed(&encoder.finish().unwrap());
    packed[0] = 1;
    packed
}

/// `iris` and `digits`, with a replica each.
async fn before(iris: &Scripted, digits: &Scripted) -> (Control, Gateway) {
    let control = Control::start().await;
    let none = Replica::start("none", Manner::Grpc).await;
    for (id, name, replica) in [(1, "iris", iris), (2, "digits", digits)] {
        let mut route = route(name, &[&none]);
        route.revisions[0].replicas = vec![replica.address.clone()];
        control.set(id, Some(route));
    }
    let gateway = Gateway::start(&control).await;
    gateway.until_known("digits").await;
    (control, gateway)
}

/// A client's stream.
struct Client {
    sends: Option<mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>>,
    head: HeaderMap,
    body: Incoming,
    came: Vec<u8>,
    _tasks: Tasks,
}

impl Client {
    /// A stream whose first message is there; `headers` are those about compression.
    async fn begin(gateway: &Gateway, first: Vec<u8>, headers: &[(&str, &str)]) -> Self {
        let tasks = Tasks::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(Executor(tasks.clone()), TokioIo::new(gateway.raw().await))
                .await
                .unwrap();
        tasks.spawn(connection);
        let (mut sends, body) = mpsc::channel(4);
        sends.send(Ok(Frame::data(first.into()))).await.unwrap();
        let mut request =
            Request::post(format!("http://{}/inference.GRPCInferenceService/ModelStreamInfer", gateway.addr))
                .header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(StreamBody::new(body)).unwrap());
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("a head in time").unwrap();
        let (parts, body) = answer.into_parts();
        Self { sends: Some(sends), head: parts.headers, body, came: Vec::new(), _tasks: tasks }
    }

    async fn send(&mut self, message: Vec<u8>) {
        self.sends.as_mut().unwrap().send(Ok(Frame::data(message.into()))).await.unwrap();
    }

    /// Reads until so much has come.
    async fn until(&mut self, length: usize) {
        while self.came.len() < length {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("more in time");
            self.came.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
        }
    }

    /// Sends no more. What comes, the status and its words.
    async fn end(mut self) -> (Vec<u8>, String, String) {
        self.sends = None;
        self.last().await
    }

    /// What comes, the status and its words.
    async fn last(mut self) -> (Vec<u8>, String, String) {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("the end in time");
            match frame.expect("a status").expect("no reset").into_data() {
                Ok(data) => self.came.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    let text = |name| trailers.get(name).map_or("", |it| it.to_str().unwrap()).to_owned();
                    return (self.came, text("grpc-status"), text("grpc-message"));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_new_model_is_opened_while_a_replica_is_in_the_middle_of_a_message() {
    let go_on = Arc::new(Notify::new());
    let goes_on = Arc::clone(&go_on);
    let iris = Scripted::start("a", move |_body, mut respond| {
        let goes_on = Arc::clone(&goes_on);
        async move {
            let mut answer = respond.send_response(Response::new(()), false).unwrap();
            let whole = framed(b"iris");
            answer.send_data(Bytes::copy_from_slice(&whole[..7]), false).unwrap();
            goes_on.notified().await;
            answer.send_data(Bytes::copy_from_slice(&whole[7..]), false).unwrap();
            end(answer);
        }
    })
    .await;
    let digits = Scripted::echo("b", false).await;
    let (_control, gateway) = before(&iris, &digits).await;
    let mut client = Client::begin(&gateway, framed(&infer("iris")), &[]).await;
    client.until(7).await;
    client.send(framed(&infer("none"))).await;
    client.send(framed(&infer("digits"))).await;
    // Whoever waits for the rest of the message reads what was sent.
    let opened = async {
        eventually("digits to be asked", || async { if digits.calls() == 1 { Ok(()) } else { Err(()) } }).await;
        go_on.notify_one();
    };
    let ((), ()) = tokio::join!(opened, client.until(9));
    let (came, status, words) = client.end().await;
    assert_eq!(status, "0", "{words}");
    assert!(came.starts_with(&framed(b"iris")), "{came:?}");
    assert!(came.ends_with(&framed(&infer("digits"))) && came.windows(4).any(|it| it == b"none"), "{came:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn the_answers_of_every_model_are_compressed_as_the_head_says() {
    let gzip = [("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity, gzip, deflate")];
    for (one, other) in [(true, false), (false, true), (true, true)] {
        let (iris, digits) = (Scripted::echo("a", one).await, Scripted::echo("b", other).await);
        let (_control, gateway) = before(&iris, &digits).await;
        let mut client = Client::begin(&gateway, framed(&infer("iris")), &gzip).await;
        assert_eq!(client.head["grpc-encoding"], "gzip");
        client.send(framed(&infer("digits"))).await;
        let (came, status, words) = client.end().await;
        assert_eq!(status, "0", "{words}");
        for (replica, name, compresses) in [(&iris, "iris", one), (&digits, "digits", other)] {
            assert_eq!(replica.seen.lock().unwrap()["grpc-accept-encoding"], "gzip");
            let wanted = if compresses { packed(&infer(name)) } else { framed(&infer(name)) };
            assert!(came.windows(wanted.len()).any(|it| it == wanted), "{name}: {came:?}");
        }
        gateway.stop().await;
    }
    // Nobody is asked to compress where the client does not, and who does so unasked is told of.
    let (iris, digits) = (Scripted::echo("a", false).await, Scripted::echo("b", true).await);
    let (_control, gateway) = before(&iris, &digits).await;
    let mut client = Client::begin(&gateway, framed(&infer("iris")), &[("grpc-accept-encoding", "gzip")]).await;
    assert!(!client.head.contains_key("grpc-encoding"));
    client.send(framed(&infer("digits"))).await;
    let (came, status, words) = client.end().await;
    assert!(!iris.seen.lock().unwrap().contains_key("grpc-accept-encoding"));
    assert_eq!(
        (came, &*status, &*words),
        (framed(&infer("iris")), "14", "a replica compresses its answers without being asked")
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_whose_replica_breaks_off_ends_with_a_status_that_says_so() {
    let iris = Scripted::echo("a", false).await;
    // It says that all is well in the middle of a message.
    let digits = Scripted::start("b", |_body, mut respond| async move {
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        answer.send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]), false).unwrap();
        end(answer);
    })
    .await;
    let (_control, gateway) = before(&iris, &digits).await;
    let mut client = Client::begin(&gateway, framed(&infer("digits")), &[]).await;
    client.until(6).await;
    let (_, status, words) = client.end().await;
    assert_eq!((&*status, &*words), ("14", "a replica ended within a message"));

    let mut client = Client::begin(&gateway, framed(&infer("iris")), &[]).await;
    client.until(framed(&infer("iris")).len()).await;
    iris.close.notify_waiters();
    let (came, status, words) = client.end().await;
    assert_eq!((came, &*status), (framed(&infer("iris")), "14"), "{words}");
    assert!(
        words.starts_with("a broke the connection within its answer (") && words.ends_with("is not sent again"),
        "{words}"
    );
    let (_, _, metrics) = gateway.get("/metrics").await;
    assert!(metrics.contains(r#"requests_total{deployment="md-1",revision="1",code="502"} 1"#), "{metrics}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_ends_when_its_callers_own_time_is_up() {
    let (iris, digits) = (Scripted::echo("a", false).await, Scripted::echo("b", false).await);
    let (_control, gateway) = before(&iris, &digits).await;
    let client = Client::begin(&gateway, framed(&infer("iris")), &[("grpc-timeout", "400m")]).await;
    let (came, status, words) = client.last().await;
    assert_eq!((came, &*status), (framed(&infer("iris")), "4"), "{words}");
    assert!(words.contains("grpc-timeout"), "{words}");
    let (_, _, metrics) = gateway.get("/metrics").await;
    assert!(metrics.contains(r#"requests_total{deployment="md-1",revision="1",code="504"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"requests_in_flight{deployment="md-1"} 0"#), "{metrics}");
    gateway.stop().await;
}

#[tokio::test]
async fn streams_that_follow_each_other_use_one_connection_and_those_beside_each_other_do_not() {
    let (iris, digits) = (Scripted::echo("a", false).await, Scripted::echo("b", false).await);
    let (_control, gateway) = before(&iris, &digits).await;
    let connections = || iris.connections.load(Ordering::SeqCst);
    for _ in 0..50 {
        let client = Client::begin(&gateway, framed(&infer("iris")), &[]).await;
        let (came, status, words) = client.end().await;
        assert_eq!((came, &*status), (framed(&infer("iris")), "0"), "{words}");
    }
    // One for each thread of the gateway, and one while the end of a stream was on its way.
    let before = connections();
    assert!(before <= 4, "{before} connections");
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(Client::begin(&gateway, framed(&infer("iris")), &[]).await);
    }
    assert!(connections() >= 8, "{} connections for 8 streams", connections());
    iris.close.notify_waiters();
    for client in open {
        assert_eq!(client.end().await.1, "14");
    }
    // Those that were kept are closed too, and cost nothing.
    assert_eq!(Client::begin(&gateway, framed(&infer("iris")), &[]).await.end().await.1, "0");
    gateway.stop().await;
}
