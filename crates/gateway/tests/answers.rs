//! What replicas answer over HTTP/1, byte for byte, and what becomes of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base::Tasks;
use harness::{Control, Gateway, Manner, Replica, config, read_all, route};
use modelway_gateway::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A replica that answers each request with the same bytes, counts them, and notes the last one's.
struct Scripted {
    addr: SocketAddr,
    answer: Arc<Mutex<(Vec<u8>, Manners)>>,
    seen: Arc<Mutex<String>>,
    requests: Arc<AtomicUsize>,
    _tasks: Tasks,
}

#[derive(Clone, Copy, PartialEq)]
enum Manners {
    Keep,
    Close,
    Reset,
    /// Answers when it has seen the head, and closes when the client does.
    Early,
}

impl Scripted {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((Vec::new(), Manners::Keep)));
        let (seen, tasks) = (Arc::<Mutex<String>>::default(), Tasks::new());
        let requests = Arc::<AtomicUsize>::default();
        let (script, note, spawner) = (Arc::clone(&answer), Arc::clone(&seen), tasks.clone());
        let counted = Arc::clone(&requests);
        tasks.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                spawner.spawn(serve(stream, Arc::clone(&script), Arc::clone(&note), Arc::clone(&counted)));
            }
        });
        Self { addr, answer, seen, requests, _tasks: tasks }
    }

    /// How it answers from now on. Counts from 0.
    fn answers(&self, bytes: impl AsRef<[u8]>, manners: Manners) {
        *self.answer.lock().unwrap() = (bytes.as_ref().to_vec(), manners);
        self.requests.store(0, Ordering::SeqCst);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<Mutex<(Vec<u8>, Manners)>>,
    note: Arc<Mutex<String>>,
    counted: Arc<AtomicUsize>,
) {
    loop {
        let mut request = Vec::new();
        let early = script.lock().unwrap().1 == Manners::Early;
        while !is_whole(&request, early) {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        counted.fetch_add(1, Ordering::SeqCst);
        *note.lock().unwrap() = String::from_utf8_lossy(&request).into_owned();
        let (answer, manners) = script.lock().unwrap().clone();
        let _gone = stream.write_all(&answer).await;
        match manners {
            Manners::Keep => {}
            Manners::Close => return,
            Manners::Reset => {
                until_read(&stream).await;
                return reset(&stream);
            }
            Manners::Early => {
                let _gone = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                return;
            }
        }
    }
}

/// Waits until the other side has read everything: a reset throws away what lies in its socket.
async fn until_read(stream: &TcpStream) {
    let [theirs, ours] = [stream.peer_addr().unwrap(), stream.local_addr().unwrap()].map(of_kernel);
    let read = async {
        loop {
            let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
            // Its address, ours, the state, and the bytes that wait to be sent and to be read.
            let of_theirs = table.lines().find_map(|line| line.split_once(&format!(" {theirs} {ours} ")));
            if of_theirs.is_none_or(|(_, rest)| rest.split(&[' ', ':']).nth(2) == Some("00000000")) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("what was sent is read");
}

/// An address of IPv4 as the kernel's table shows it.
fn of_kernel(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("{address} is not of IPv4") };
    format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port())
}

fn reset(stream: &TcpStream) {
    #[allow(deprecated, reason = "with no time to linger it does not block, and resets")]
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Every body of these tests ends with a brace.
fn is_whole(request: &[u8], early: bool) -> bool {
    if early && request.ends_with(b"\r\n\r\n") {
        return true;
    }
    let is_chunked = || request.windows(28).any(|it| it.eq_ignore_ascii_case(b"transfer-encoding: chunked\r\n"));
    match request {
        [.., b'}'] => !is_chunked(),
        _ => request.ends_with(b"\r\n0\r\n\r\n"),
    }
}

async fn gateway() -> (Scripted, Gateway) {
    let (scripted, control) = (Scripted::start().await, Control::start().await);
    let unused = Replica::start("a", Manner::Well).await;
    let mut route = route("iris", &[&unused]);
    route.revisions[0].replicas[0].address = scripted.addr.to_string().parse().unwrap();
    control.set(1, Some(route));
    let gateway = Gateway::with(Config { control_url: control.url(), buffer_body_bytes: 64 << 10, ..config() }).await;
    gateway.until_known("md-1").await;
    (scripted, gateway)
}

#[tokio::test]
async fn an_answer_arrives_whole_however_it_is_framed() {
    let (replica, gateway) = gateway().await;
    for (answer, manners) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Manners::Keep),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", Manners::Keep),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", Manners::Keep),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nsum: 1\r\n\r\n", Manners::Keep),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Manners::Keep,
        ),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Manners::Keep),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            Manners::Keep,
        ),
        ("HTTP/1.1 200 Fine\r\n\r\nhello", Manners::Close),
        ("HTTP/1.0 200 OK\r\n\r\nhello", Manners::Close),
        ("HTTP/1.1 200 OK\r\nconnection: close, x-own\r\nx-own: 1\r\ncontent-length: 5\r\n\r\nhello", Manners::Close),
    ] {
        replica.answers(answer, manners);
        for _ in 0..3 {
            let (code, headers, text) = gateway.infer("iris").await;
            assert_eq!((code, text.as_str()), (200, "hello"), "{answer}");
            assert!(!headers.contains_key("x-own") && headers.contains_key("x-modelway-replica"), "{answer}");
        }
        assert_eq!(replica.requests(), 3, "{answer}");
    }
    replica.answers("HTTP/1.1 204 No Content\r\n\r\n", Manners::Keep);
    assert_eq!(gateway.infer("iris").await.0, 204);
    replica.answers(b"HTTP/1.1 200 OK\r\nx-odd: \xff\xfe\r\ncontent-length: 2\r\n\r\nok", Manners::Keep);
    assert_eq!(gateway.infer("iris").await.1["x-odd"].as_bytes(), b"\xff\xfe");
    gateway.stop().await;
}

#[tokio::test]
async fn bytes_behind_an_answer_are_no_answer_to_the_next_request() {
    let (replica, gateway) = gateway().await;
    for length in ["content-length: 2\r\n\r\nok", "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"] {
        let poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
        replica.answers(format!("HTTP/1.1 200 OK\r\n{length}{poison}"), Manners::Keep);
        for _ in 0..20 {
            let (code, _, text) = gateway.infer("iris").await;
            assert_eq!((code, text.as_str()), (200, "ok"));
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_or_in_two_ways_is_502_and_sent_again_only_if_nothing_of_it_came() {
    let (replica, gateway) = gateway().await;
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 2\r\n\r\nok", "y".repeat(1 << 20));
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{many}content-length: 2\r\n\r\nok");
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(1_000);
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length : 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 O",
        "H",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "",
        &long,
        &many,
        &hints,
    ] {
        for manners in [Manners::Close, Manners::Reset] {
            replica.answers(answer, manners);
            // One that ended two replicas is remembered, and tried once.
            let body = if manners == Manners::Close { "{}" } else { "{ }" };
            let (code, _, words) = gateway.post("/v2/models/iris/infer", body).await;
            assert_eq!(code, 502, "{answer:.100}");
            let (when, times) =
                if answer.is_empty() { ("before it answered", 2) } else { ("in the header of its answer", 1) };
            assert!(words.contains(&format!("the connection to a broke {when}")), "{answer:.100}: {words}");
            assert_eq!(replica.requests(), times, "{answer:.100}: times that it was sent");
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_after_its_head_breaks_off_at_the_client() {
    let (replica, gateway) = gateway().await;
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloo\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    ] {
        for manners in [Manners::Close, Manners::Reset] {
            replica.answers(answer, manners);
            let request = gateway.client.post(gateway.url("/v2/models/iris/infer")).body("{}");
            // The head may be lost together with the connection.
            let whole = match request.send().await {
                Ok(response) => response.bytes().await.is_ok(),
                Err(_) => false,
            };
            assert!(!whole, "the client must see that {answer} is cut off");
            assert_eq!(replica.requests(), 1, "{answer} is not sent again");
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_request_reaches_its_replica_in_one_framing() {
    let (replica, gateway) = gateway().await;
    replica.answers("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Manners::Keep);
    let framing = |head: &str| {
        let (head, _) = head.split_once("\r\n\r\n").unwrap();
        let named = |line: &&str| line.starts_with("content-length") || line.starts_with("transfer-encoding");
        head.to_ascii_lowercase().lines().filter(named).map(str::to_owned).collect::<Vec<_>>()
    };
    // Short and in chunks: held, and sent with its length.
    let mut client = gateway.raw().await;
    let request = "POST /v2/models/iris/infer HTTP/1.1\r\nhost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                   1;x=y\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!((&answer, framing(&replica.seen())), (b"HTTP/1.1 200 OK", vec!["content-length: 2".to_owned()]));
    assert!(replica.seen().ends_with("\r\n\r\n{}"));
    // Longer than is held: with its length where that is known, else in chunks.
    let long = format!("{}}}", " ".repeat(100 << 10));
    assert_eq!(gateway.post("/v2/models/iris/infer", long.clone()).await.0, 200);
    assert_eq!(framing(&replica.seen()), [format!("content-length: {}", long.len())]);
    let pieces =
        long.as_bytes().chunks(10_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    assert_eq!(gateway.post("/v2/models/iris/infer", body).await.0, 200);
    let seen = replica.seen();
    assert_eq!(framing(&seen), ["transfer-encoding: chunked"]);
    assert_eq!(seen.matches(' ').count() - seen.split_once("\r\n\r\n").unwrap().0.matches(' ').count(), 100 << 10);
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_that_comes_before_the_end_of_the_request_arrives() {
    let (replica, gateway) = gateway().await;
    replica.answers("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlong", Manners::Early);
    let (code, _, text) = gateway.post("/v2/models/iris/infer", vec![b' '; 200 << 10]).await;
    assert_eq!((code, text.as_str()), (413, "long"));
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_that_looks_like_hypers_own_refusal_arrives_as_it_is() {
    let (replica, gateway) = gateway().await;
    let refusal = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    // As the head of an answer.
    replica.answers("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", Manners::Keep);
    let mut client = gateway.raw().await;
    let head =
        "POST /v2/models/iris/infer HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = read_all(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("x-request-id"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    // As its body, and as the end of one that is longer than a piece.
    for before in [0, 20 << 10, 300 << 10] {
        let body = "x".repeat(before) + refusal;
        replica.answers(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()), Manners::Keep);
        let http2 = base::client::builder().http2_prior_knowledge().timeout(PATIENCE).build().unwrap();
        let http1 = base::client::builder().timeout(PATIENCE).build().unwrap();
        for client in [http2, http1] {
            for _ in 0..3 {
                let answer = client.post(gateway.url("/v2/models/iris/infer")).body("{}").send().await.unwrap();
                assert_eq!(answer.text().await.unwrap(), body);
            }
        }
    }
    gateway.stop().await;
}
