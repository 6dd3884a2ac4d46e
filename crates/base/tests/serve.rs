//! A server on a real socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use modelway_base::serve::{Answer, Ending, Limits, Peer, Source, accept};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What hyper writes of its own where a request is no HTTP.
const REFUSAL: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// `/400` is a bare refusal, `/long` is more than a window, `/held` is counted until it is taken, and everything else is [`REFUSAL`] as a body.
#[derive(Default)]
struct Echo {
    /// Requests whose answers are not over, or not taken.
    open: Arc<AtomicUsize>,
}

struct Open(Arc<AtomicUsize>);

impl AsRef<[u8]> for Open {
    fn as_ref(&self) -> &[u8] {
        REFUSAL.as_bytes()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Answer for Echo {
    type Body = reqwest::Body;

    async fn answer(self: Arc<Self>, _: Peer, request: Request<Incoming>) -> Result<Response<Self::Body>, Infallible> {
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.open));
        let mut response = Response::new(reqwest::Body::default());
        match request.uri().path() {
            "/400" => *response.status_mut() = StatusCode::BAD_REQUEST,
            "/held" => *response.body_mut() = Bytes::from_owner(open).into(),
            "/long" => {
                let pieces = megabytes(open);
                *response.body_mut() = reqwest::Body::wrap_stream(pieces);
            }
            _ => *response.body_mut() = REFUSAL.into(),
        }
        Ok(response)
    }

    fn refuse(&self, _: &Request<Incoming>, status: StatusCode, words: &str) -> Response<Self::Body> {
        let mut response = Response::new(words.to_owned().into());
        *response.status_mut() = status;
        response
    }
}

/// A megabyte for ever.
fn megabytes(open: Open) -> impl futures::Stream<Item = Result<Vec<u8>, Infallible>> {
    futures::stream::repeat_with(move || {
        let _still = &open;
        Ok(vec![7; 1 << 20])
    })
}

async fn server(stall: Duration, calls: usize) -> (String, Arc<Echo>, modelway_base::Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (echo, tasks) = (Arc::new(Echo::default()), modelway_base::Tasks::new());
    let limits = Limits {
        connections: 10,
        calls,
        head: PATIENCE,
        idle: PATIENCE,
        stall,
        full: "",
        slow: "",
        words: |_, words| ("text/plain", words.to_owned()),
    };
    let (answer, stop) = (Arc::clone(&echo), tasks.clone());
    tasks.spawn(async move {
        let ending = Ending::default();
        tokio::select! {
            () = accept(Source::Tcp(&listener), limits, &answer, &ending) => {}
            () = stop.stopping() => {}
        }
    });
    (addr, echo, tasks)
}

fn http2() -> reqwest::Client {
    modelway_base::client::builder().http2_prior_knowledge().timeout(PATIENCE).build().unwrap()
}

#[tokio::test]
async fn what_looks_like_a_refusal_of_hypers_own_is_an_answer_where_a_request_was_answered() {
    let (addr, _, tasks) = server(PATIENCE, 10).await;
    let mut stream = TcpStream::connect(&addr).await.unwrap();
    stream.write_all(b"GET /400 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    let client = http2();
    for _ in 0..3 {
        let answer = client.get(format!("http://{addr}/")).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), REFUSAL);
    }
    tasks.stop();
}

#[tokio::test]
async fn a_call_over_http2_whose_answer_nobody_takes_ends_and_the_others_of_its_connection_do_not() {
    let (addr, echo, tasks) = server(Duration::from_millis(300), 10).await;
    let client = http2();
    let untaken = client.get(format!("http://{addr}/long")).send().await.unwrap();
    assert_eq!(echo.open.load(Ordering::SeqCst), 1);
    let ends = async {
        while echo.open.load(Ordering::SeqCst) > 0 {
            // An answer that is taken shows that the connection is in order, not that the other one is taken.
            let answer = client.get(format!("http://{addr}/")).send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), REFUSAL);
        }
    };
    tokio::time::timeout(PATIENCE, ends).await.expect("it ends");
    assert!(untaken.bytes().await.is_err(), "it was cut off");
    tasks.stop();
}

/// A client that makes room for one byte of each answer.
fn narrow() -> reqwest::Client {
    let client = modelway_base::client::builder().http2_prior_knowledge().http2_initial_stream_window_size(1);
    client.timeout(PATIENCE).build().unwrap()
}

#[tokio::test]
async fn a_connection_over_http2_that_keeps_the_last_piece_of_an_answer_ends_although_it_is_busy() {
    let (addr, echo, tasks) = server(Duration::from_millis(300), 10).await;
    let client = narrow();
    let untaken = client.get(format!("http://{addr}/held")).send().await.unwrap();
    assert_eq!(echo.open.load(Ordering::SeqCst), 1);
    let ends = async {
        while echo.open.load(Ordering::SeqCst) > 0 {
            let answer = client.get(format!("http://{addr}/400")).send().await.unwrap();
            assert_eq!(answer.status(), 400, "nobody else is disturbed");
        }
    };
    tokio::time::timeout(PATIENCE, ends).await.expect("it ends");
    assert!(untaken.bytes().await.is_err(), "it was cut off");
    tasks.stop();
}

#[tokio::test]
async fn calls_of_all_connections_are_bounded_and_the_first_of_each_is_answered() {
    let (addr, _, tasks) = server(PATIENCE, 4).await;
    let client = narrow();
    let mut untaken = Vec::new();
    let refused = loop {
        let answer = client.get(format!("http://{addr}/held")).send().await.unwrap();
        if answer.status() != 200 {
            break answer.status();
        }
        untaken.push(answer);
        assert!(untaken.len() < 20, "there is no bound");
    };
    assert_eq!(refused, 503);
    let other = http2().get(format!("http://{addr}/")).send().await.unwrap();
    assert_eq!(other.text().await.unwrap(), REFUSAL);
    drop((untaken, client));
    let free = async {
        let client = narrow();
        let get = || async { client.get(format!("http://{addr}/held")).send().await.unwrap() };
        loop {
            let answers = futures::join!(get(), get(), get());
            if [answers.0, answers.1, answers.2].iter().all(|answer| answer.status() == 200) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("what was held is given back");
    tasks.stop();
}
