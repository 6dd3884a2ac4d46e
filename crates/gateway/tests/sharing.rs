//! The calls of many clients share a connection to a replica: what one client or one call does costs the others nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use harness::{Control, Executor, Gateway, Manner, Replica, config, eventually, route};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
};
use hyper_util::rt::TokioIo;
use modelway_gateway::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A gateway before one replica.
async fn before(replica: &Replica, change: impl FnOnce(&mut Config)) -> (Control, Gateway) {
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[replica])));
    let mut config = Config { control_url: control.url(), threads: 1, ..config() };
    change(&mut config);
    let gateway = Gateway::with(config).await;
    gateway.until_known("md-1").await;
    (control, gateway)
}

/// Sends a call on a connection of its own.
async fn send<B>(gateway: &Gateway, tasks: &base::Tasks, method: &str, body: B) -> hyper::Result<Response<Incoming>>
where
    B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let mut builder = http2::Builder::new(Executor(tasks.clone()));
    let builder = builder.initial_stream_window_size(64 << 10).initial_connection_window_size(64 << 10);
    let (mut sender, connection) = builder.handshake(TokioIo::new(gateway.raw().await)).await?;
    tasks.spawn(connection);
    let request = Request::post(format!("http://{}/inference.GRPCInferenceService/{method}", gateway.addr))
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    sender.send_request(request).await
}

/// The status of a short call.
async fn status(gateway: &Gateway) -> String {
    let tasks = base::Tasks::new();
    let answer = send(gateway, &tasks, "ModelInfer", Full::<Bytes>::from(message(8))).await.unwrap();
    let head = answer.headers().clone();
    let trailers = answer.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let find = |headers: &HeaderMap, name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let code = find(&head, "grpc-status").or_else(|| find(&trailers, "grpc-status"));
    format!("{} {}", code.unwrap_or_default(), find(&head, "grpc-message").unwrap_or_default()).trim().to_owned()
}

/// A message for `iris`, with so many bytes behind the name.
fn message(length: usize) -> Vec<u8> {
    let mut rest = u32::try_from(length).unwrap();
    let mut message = vec![0x0a, 4, b'i', b'r', b'i', b's', 0x3a];
    while rest >= 0x80 {
        message.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    message.push(u8::try_from(rest).unwrap());
    message.resize(message.len() + length, 7);
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

fn body<S: Stream<Item = Bytes>>(
    pieces: S,
) -> StreamBody<impl Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>>> {
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece))))
}

#[tokio::test]
async fn a_long_call_in_small_frames_reaches_its_replica_in_large_ones() {
    let replica = Replica::start("a", Manner::Grpc).await;
    let (_control, gateway) = before(&replica, |config| config.buffer_body_bytes = 1 << 10).await;
    let whole = Bytes::from(message(40_000));
    let tasks = base::Tasks::new();
    let pieces: Vec<_> = (0..whole.len()).step_by(20).map(|at| whole.slice(at..whole.len().min(at + 20))).collect();
    // Each frame by itself, as a client sends them that has no more at the time.
    let slowly = futures::stream::iter(pieces).then(|piece| async {
        tokio::task::yield_now().await;
        piece
    });
    let answer = send(&gateway, &tasks, "ModelInfer", body(Box::pin(slowly))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), whole, "it comes whole");
    let frames = replica.frames.load(Ordering::SeqCst);
    assert!(frames <= 12, "{frames} frames for 40 KB");
    gateway.stop().await;
}

#[tokio::test]
async fn streams_whose_messages_a_replica_does_not_take_hold_up_no_call() {
    let replica = Replica::start("a", Manner::DeafGrpc).await;
    let (_control, gateway) = before(&replica, |_| {}).await;
    let tasks = base::Tasks::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let sending: Vec<_> = (0..6)
        .map(|_| {
            let (whole, sent) = (Bytes::from(message(30_000)), Arc::clone(&sent));
            let endless = futures::stream::repeat_with(move || {
                sent.fetch_add(1, Ordering::SeqCst);
                whole.clone()
            });
            Box::pin(send(&gateway, &tasks, "ModelStreamInfer", body(endless)))
        })
        .collect();
    let calls = async {
        eventually("the streams to be there", || async {
            (replica.requests() == 6 && sent.load(Ordering::SeqCst) > 100).then_some(()).ok_or("not yet")
        })
        .await;
        for _ in 0..4 {
            let status = tokio::time::timeout(Duration::from_secs(10), status(&gateway)).await;
            assert_eq!(status.expect("an answer in time"), "0");
        }
    };
    tokio::select! {
        _ = futures::future::select_all(sending) => panic!("nobody answers a stream"),
        () = calls => {}
    }
    tasks.stop();
    gateway.stop().await;
}

#[tokio::test]
async fn clients_that_do_not_take_their_answers_hold_up_no_call() {
    let replica = Replica::start("a", Manner::LongGrpc(1 << 20)).await;
    let (_control, gateway) = before(&replica, |_| {}).await;
    let tasks = base::Tasks::new();
    let mut answers = Vec::new();
    // More than a replica takes on one connection, and more than the windows of one have room for.
    for _ in 0..260 {
        let answer = send(&gateway, &tasks, "ModelInfer", Full::<Bytes>::from(message(8)));
        answers.push(tokio::time::timeout(Duration::from_secs(10), answer).await.expect("a head in time").unwrap());
    }
    replica.behave(Manner::Grpc);
    let status = tokio::time::timeout(Duration::from_secs(10), status(&gateway)).await;
    assert_eq!(status.expect("an answer in time"), "0");
    drop(answers);
    tasks.stop();
    gateway.stop().await;
}

#[tokio::test]
async fn a_call_whose_answer_its_client_does_not_take_ends_and_the_others_of_its_connection_go_on() {
    let replica = Replica::start("a", Manner::Grpc).await;
    let (_control, gateway) = before(&replica, |config| config.write_timeout_ms = 500).await;
    for (window, length) in [(0, 8), (64 << 10, 8 << 20)] {
        let tasks = base::Tasks::new();
        let mut builder = http2::Builder::new(Executor(tasks.clone()));
        let builder = builder.initial_stream_window_size(window).initial_connection_window_size(1 << 20);
        let (mut sender, connection) = builder.handshake(TokioIo::new(gateway.raw().await)).await.unwrap();
        tasks.spawn(connection);
        replica.behave(Manner::LongGrpc(length));
        let call = || {
            let path = format!("http://{}/inference.GRPCInferenceService/ModelInfer", gateway.addr);
            let request = Request::post(path).header("content-type", "application/grpc");
            request.body(Full::<Bytes>::from(message(8))).unwrap()
        };
        let untaken = sender.send_request(call()).await.unwrap();
        // Calls without messages in their answers need no window.
        replica.behave(Manner::LongGrpc(0));
        let over = async {
            while !gateway.get("/metrics").await.2.contains("requests_in_flight{deployment=\"md-1\"} 0") {
                let answer = sender.send_request(call()).await.unwrap();
                assert_eq!(answer.into_body().collect().await.unwrap().trailers().unwrap()["grpc-status"], "0");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), over).await.expect("it ends");
        let answer = sender.send_request(call()).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().trailers().unwrap()["grpc-status"], "0");
        assert!(untaken.into_body().collect().await.is_err(), "it was cut off");
        tasks.stop();
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_whose_client_takes_nothing_of_the_last_piece_is_closed() {
    let replica = Replica::start("a", Manner::Well).await;
    let (_control, gateway) = before(&replica, |config| {
        (config.write_timeout_ms, config.idle_timeout_ms) = (500, 500);
    })
    .await;
    let tasks = base::Tasks::new();
    let mut builder = http2::Builder::new(Executor(tasks.clone()));
    let (mut sender, connection) =
        builder.initial_stream_window_size(1).handshake(TokioIo::new(gateway.raw().await)).await.unwrap();
    let connection = tasks.spawn(connection);
    let request = Request::get(format!("http://{}/v1/models", gateway.addr)).body(Full::<Bytes>::default()).unwrap();
    let _untaken = sender.send_request(request).await.unwrap();
    let _ended = tokio::time::timeout(Duration::from_secs(20), connection).await.expect("it is closed");
    gateway.stop().await;
}

/// A connection of a client that makes room for one byte of each answer.
struct Narrow<'g> {
    gateway: &'g Gateway,
    sender: http2::SendRequest<Full<Bytes>>,
    tasks: base::Tasks,
    connection: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl<'g> Narrow<'g> {
    async fn connect(gateway: &'g Gateway) -> Self {
        let tasks = base::Tasks::new();
        let mut builder = http2::Builder::new(Executor(tasks.clone()));
        let (sender, connection) =
            builder.initial_stream_window_size(1).handshake(TokioIo::new(gateway.raw().await)).await.unwrap();
        let connection = tasks.spawn(connection);
        Self { gateway, sender, tasks, connection }
    }

    async fn get(&self, path: &str) -> Response<Incoming> {
        let request = Request::get(format!("http://{}{path}", self.gateway.addr)).body(Full::default()).unwrap();
        self.sender.clone().send_request(request).await.unwrap()
    }

    /// Watches the gateway's health, which takes one call and, until its client takes it, one piece.
    async fn watch(&self) -> Response<Incoming> {
        let request = Request::post(format!("http://{}/grpc.health.v1.Health/Watch", self.gateway.addr))
            .header("content-type", "application/grpc")
            .body(Full::from(Bytes::from_static(&[0; 5])))
            .unwrap();
        self.sender.clone().send_request(request).await.unwrap()
    }
}

impl Drop for Narrow<'_> {
    fn drop(&mut self) {
        self.connection.abort();
        self.tasks.stop();
    }
}

#[tokio::test]
async fn a_connection_that_keeps_last_pieces_of_answers_is_closed_although_a_call_goes_on() {
    let replica = Replica::start("a", Manner::Grpc).await;
    let (_control, gateway) = before(&replica, |config| config.write_timeout_ms = 500).await;
    let mut narrow = Narrow::connect(&gateway).await;
    let mut watch = narrow.watch().await;
    let mut told = 0;
    while told < 7 {
        told += watch.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    let mut untaken = Vec::new();
    for _ in 0..20 {
        untaken.push(narrow.get("/v1/models").await);
    }
    let others = async {
        loop {
            assert_eq!(status(&gateway).await, "0", "other connections go on");
        }
    };
    let closed = async {
        tokio::select! {
            _ = &mut narrow.connection => {}
            () = others => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("it is closed");
    for answer in untaken {
        assert!(answer.into_body().collect().await.is_err(), "it was cut off");
    }
    assert_eq!(status(&gateway).await, "0");
    drop(narrow);
    gateway.stop().await;
}

#[tokio::test]
async fn calls_over_http2_of_all_connections_are_bounded_and_the_first_of_each_is_answered() {
    let replica = Replica::start("a", Manner::Grpc).await;
    let (_control, gateway) = before(&replica, |config| config.write_timeout_ms = 600_000).await;
    let mut connections = Vec::new();
    let mut answers = Vec::new();
    let refused = loop {
        assert!(answers.len() < 20_000, "there is no bound");
        let narrow = Narrow::connect(&gateway).await;
        let calls = futures::stream::iter(0..1_000).map(|_| narrow.watch()).buffer_unordered(100);
        let came: Vec<_> = calls.collect().await;
        connections.push(narrow);
        let (mut refused, begun) =
            came.into_iter().partition::<Vec<_>, _>(|answer| answer.headers().contains_key("grpc-status"));
        answers.extend(begun);
        if let Some(refused) = refused.pop() {
            break refused;
        }
    };
    assert!(answers.len() > 9_000, "{} calls are no more than there may be", answers.len());
    assert_eq!(refused.headers()["grpc-status"], "14");
    let words = refused.headers()["grpc-message"].to_str().unwrap();
    assert!(words.contains("has reached its limit of HTTP/2 calls"), "{words}");
    let refused = connections.last().unwrap().get("/v1/models").await;
    assert_eq!(refused.status(), 503);
    let words = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(words.starts_with(b"{\"error\":\"this gateway has reached its limit of HTTP/2 calls"), "{words:?}");
    assert_eq!(status(&gateway).await, "0", "the first call of a connection is answered");
    drop((answers, connections));
    let narrow = Narrow::connect(&gateway).await;
    let free = async {
        loop {
            let answers = [narrow.watch().await, narrow.watch().await, narrow.watch().await];
            if answers.iter().all(|answer| !answer.headers().contains_key("grpc-status")) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free).await.expect("what was held is given back");
    drop(narrow);
    gateway.stop().await;
}

/// HTTP/2 by hand: answers the first call of each connection, and to the second one says that the connection ends and
/// that it takes nothing of it.
async fn answer_once(mut stream: TcpStream) -> std::io::Result<()> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(4, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await?;
        let (kind, ends, id) = (head[3], head[4] & 1 == 1, head[8]);
        match (kind, ends, id) {
            (4, false, _) => stream.write_all(&frame(4, 1, 0, &[])).await?,
            // 200, and grpc-status 0, and the end.
            (0 | 1, true, 1) => {
                let answer = frame(1, 5, 1, b"\x88\x00\x0bgrpc-status\x010");
                stream.write_all(&answer).await?;
            }
            (0 | 1, true, _) => {
                stream.write_all(&frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).await?;
                return Ok(());
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_a_call_begins_costs_no_try() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let replica = Replica::start("a", Manner::Grpc).await;
    let mut route = route("iris", &[&replica]);
    route.revisions[0].replicas[0].address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let tasks = base::Tasks::new();
    let serving = tasks.clone();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            serving.spawn(answer_once(stream));
        }
    });
    let control = Control::start().await;
    control.set(1, Some(route));
    let gateway = Gateway::with(Config { control_url: control.url(), threads: 1, retries: 0, ..config() }).await;
    gateway.until_known("md-1").await;
    for _ in 0..4 {
        assert_eq!(status(&gateway).await, "0");
    }
    let (_, _, metrics) = gateway.get("/metrics").await;
    assert!(metrics.contains("modelway_gateway_retries_total 0"), "{metrics}");
    assert!(!metrics.contains("ejections_total{"), "nothing speaks against the replica: {metrics}");
    tasks.stop();
    gateway.stop().await;
}
