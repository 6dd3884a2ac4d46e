//! Clients that are silent, slow, half gone or gone: they cost a bounded time, and nobody else's place.

use std::time::{Duration, Instant};

use base::serve::conformance::{Subject, suite};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use crate::support::{PATIENCE, Server, config, models};

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap()
}

/// What comes until the connection is closed.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("closed in time");
    read.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&answer)));
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn pick() -> Vec<u8> {
    let input = json!({"name": "index", "shape": [1], "datatype": "INT64", "data": [3]});
    post("/v2/models/pick/infer", &json!({"inputs": [input]}))
}

fn rounds(rounds: u64) -> Vec<u8> {
    let input = json!({"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]});
    post("/v2/models/slow/infer", &json!({"inputs": [input]}))
}

/// A request of so many rows of 8 bytes that is answered with the same bytes.
fn large(rows: usize) -> Vec<u8> {
    let body = vec![0_u8; rows * 8];
    let head = format!(
        "{{\"inputs\":[{{\"name\":\"x\",\"shape\":[{rows},2],\"datatype\":\"FP32\",\"parameters\":{{\"binary_data_size\":{}}}}}],\
         \"parameters\":{{\"binary_data_output\":true}}}}",
        body.len()
    );
    let lengths = (head.len(), head.len() + body.len());
    let start = format!(
        "POST /v2/models/FP32/infer HTTP/1.1\r\nhost: localhost\r\ninference-header-content-length: {}\r\n\
         content-length: {}\r\n\r\n{head}",
        lengths.0, lengths.1
    );
    [start.into_bytes(), body].concat()
}

/// Waits until the metrics have this line.
async fn counted(server: &Server, line: &str) {
    let counted = async { while !server.text("/metrics").await.contains(line) {} };
    tokio::time::timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("no {line}"));
}

#[tokio::test]
async fn its_listener_does_what_every_listener_does() {
    let mut settings = config(&models().join("pick"));
    (settings.max_connections, settings.header_timeout_ms) = (50, 500);
    let server = Server::ready(settings).await;
    let address = server.url.trim_start_matches("http://").parse().unwrap();
    suite(Subject { address, connections: 50, path: "/v2/health/live" }).await;
}

#[tokio::test]
async fn a_later_head_has_as_long_as_the_first_and_an_idle_connection_its_own_time() {
    let mut settings = config(&models().join("pick"));
    (settings.header_timeout_ms, settings.idle_timeout_ms) = (200, 3_600_000);
    let server = Server::ready(settings.clone()).await;
    let mut stream = connect(&server).await;
    stream.write_all(&pick()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nx-slow: ").await.unwrap();
    assert!(rest(&mut stream).await.contains("HTTP/1.1 408"));
    (settings.header_timeout_ms, settings.idle_timeout_ms) = (3_600_000, 200);
    let server = Server::ready(settings).await;
    let mut stream = connect(&server).await;
    stream.write_all(&pick()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"), "it is answered, and closed when idle for long");
}

#[tokio::test]
async fn a_client_that_half_closes_after_its_request_gets_its_answer() {
    let server = Server::of("slow").await;
    let measured = 20_000;
    let began = Instant::now();
    let mut stream = connect(&server).await;
    stream.write_all(&rounds(measured)).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    let long = measured * 1_800 / u64::try_from(began.elapsed().as_millis()).unwrap().max(1);
    // One that is answered at once, and one that takes longer than the server takes to doubt that the client is there.
    for work in [1, long] {
        let mut stream = connect(&server).await;
        stream.write_all(&rounds(work)).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        let last = answer.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
        assert!(last.starts_with("HTTP/1.1 200") && last.contains("\"outputs\""), "{answer}");
    }
    assert!(server.text("/metrics").await.contains(r#"error_type="client_left"} 0"#));
}

#[tokio::test]
async fn a_client_that_is_gone_ends_its_run_and_is_counted() {
    let server = Server::of("slow").await;
    let endless = 1_000_000_000;
    for left in 1..=2 {
        let mut stream = connect(&server).await;
        stream.write_all(&rounds(endless)).await.unwrap();
        if left == 2 {
            stream.shutdown().await.unwrap();
        }
        drop(stream);
        counted(&server, &format!(r#"error_type="client_left"}} {left}"#)).await;
        let mut stream = connect(&server).await;
        stream.write_all(&rounds(1)).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"), "the model is free again");
    }
}

#[tokio::test]
async fn the_same_holds_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(&models().join("slow"));
    let socket = folder.path().join("replica.sock");
    settings.socket = Some(socket.clone());
    let _server = Server::start(settings).await;
    let ask = async |work: u64, half: bool| {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(&rounds(work)).await.unwrap();
        if half {
            stream.shutdown().await.unwrap();
        }
        stream
    };
    let ready = async { while !rest(&mut ask(1, true).await).await.starts_with("HTTP/1.1 200") {} };
    tokio::time::timeout(PATIENCE, ready).await.expect("ready in time");
    drop(ask(1_000_000_000, false).await);
    let freed = async { rest(&mut ask(1, true).await).await };
    let answer = tokio::time::timeout(PATIENCE, freed).await.expect("the run of the one that left is ended");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_too_many_reads_its_503_although_it_sent_a_request() {
    let mut settings = config(&models().join("pick"));
    settings.max_connections = 1;
    let server = Server::ready(settings).await;
    let large = [pick(), vec![b' '; 300_000]].concat();
    let full = async {
        loop {
            let _held = connect(&server).await;
            let mut stream = connect(&server).await;
            // The connections of the test's own preparation go by and by.
            let sent = stream.write_all(&large).await;
            let answer = rest(&mut stream).await;
            if answer.starts_with("HTTP/1.1 503") {
                sent.unwrap();
                break answer;
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, full).await.expect("the limit holds");
    assert!(answer.contains("serve.max_connections"), "{answer}");
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_still_sends() {
    let mut settings = config(&models().join("pick"));
    settings.body_limit_bytes = 1_000;
    let server = Server::ready(settings).await;
    for _ in 0..20 {
        let mut stream = connect(&server).await;
        let head = b"POST /v2/models/pick/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        stream.write_all(&vec![b' '; 4_000_000]).await.unwrap();
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 413"));
    }
}

#[tokio::test]
async fn an_answer_that_is_not_taken_closes_its_connection() {
    let mut settings = config(&models().join("identity/FP32"));
    settings.write_timeout_ms = 300;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("replica.sock");
    let tcp = Server::ready(settings.clone()).await;
    settings.socket = Some(socket.clone());
    let _unix = Server::start(settings).await;
    let request = large(2_000_000);
    async fn cut(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) {
        stream.write_all(request).await.unwrap();
        // Nothing is read for much longer than the server waits.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed");
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.len() < request.len() - 1_000_000, "{}", answer.len());
    }
    cut(connect(&tcp).await, &request).await;
    let ready = async {
        loop {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
            if rest(&mut stream).await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("ready in time");
    cut(UnixStream::connect(&socket).await.unwrap(), &request).await;
}

#[tokio::test]
async fn while_a_server_drains_its_answers_send_clients_elsewhere() {
    let mut settings = config(&models().join("pick"));
    settings.drain_ms = 3_600_000;
    let server = Server::ready(settings).await;
    let mut kept = connect(&server).await;
    kept.write_all(&pick()).await.unwrap();
    let mut head = vec![0; 12];
    kept.read_exact(&mut head).await.unwrap();
    let old = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let live = format!("{}/health/live", server.url);
    assert_eq!(old.get(&live).send().await.unwrap().status(), 200);
    server.tasks.stop();
    let ending = async { while server.get("/v2/health/ready").await.0 != 503 {} };
    tokio::time::timeout(PATIENCE, ending).await.expect("it drains");
    kept.write_all(&pick()).await.unwrap();
    let answer = rest(&mut kept).await;
    assert!(answer.contains("HTTP/1.1 200") && answer.to_lowercase().contains("connection: close"), "{answer}");
    // An HTTP/2 client is told by GOAWAY, makes a new connection and is still answered.
    for _ in 0..5 {
        assert_eq!(old.get(&live).send().await.unwrap().status(), 200);
    }
    let mut fresh = connect(&server).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // GET /health/live with its four headers out of HPACK's static table, and a literal path.
    let block = b"\x82\x86\x41\x09localhost\x04\x0c/health/live";
    let headers = [&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1][..], block].concat();
    fresh.write_all(&[&preface[..], &headers].concat()).await.unwrap();
    let mut frames = Vec::new();
    let told = async {
        // A frame of type 7 is a GOAWAY.
        while !frames.windows(9).any(|frame| frame[..4] == [0, 0, 8, 7]) {
            assert!(fresh.read_buf(&mut frames).await.unwrap() > 0, "closed without a GOAWAY");
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("a GOAWAY");
}

#[tokio::test]
async fn memory_is_taken_for_what_arrives_and_until_answers_are_taken() {
    let mut settings = config(&models().join("identity/FP32"));
    (settings.bodies_limit_bytes, settings.write_timeout_ms) = (24 << 20, 500);
    let server = Server::ready(settings).await;
    let ask = async |request: &[u8]| {
        let mut stream = connect(&server).await;
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        rest(&mut stream).await
    };
    // Many that say that much will come.
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&server).await;
        let head = "POST /v2/models/FP32/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 67000000\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let (middle, big) = (large(1_000_000), large(2_000_000));
    assert!(ask(&middle).await.starts_with("HTTP/1.1 200"));
    // An answer of 16 MB that nobody takes leaves no room for another one, until it is cut off.
    let refused = async {
        loop {
            let mut unread = connect(&server).await;
            if unread.write_all(&big).await.is_err() || unread.read_exact(&mut [0; 12]).await.is_err() {
                continue;
            }
            let answer = ask(&big).await;
            if !answer.starts_with("HTTP/1.1 200") {
                break answer;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("the answer counts");
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("serve.bodies_limit_bytes"), "{refused:.200}");
    // Once it is not waited for any more, there is room again.
    let free = async { while !ask(&big).await.starts_with("HTTP/1.1 200") {} };
    tokio::time::timeout(PATIENCE, free).await.expect("the memory is given back");
}

#[tokio::test]
async fn bodies_that_drip_give_way_when_memory_is_short() {
    let mut settings = config(&models().join("identity/FP32"));
    settings.bodies_limit_bytes = 24 << 20;
    let server = Server::ready(settings).await;
    let begun = [
        b"POST /v2/models/FP32/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 67000000\r\n\r\n",
        &vec![b' '; 2_900_000][..],
    ]
    .concat();
    // Each begins again if it is refused for want of memory. What it is told else ends it.
    let drips = futures::future::select_all((0..8).map(|_| {
        Box::pin(async {
            loop {
                let mut stream = connect(&server).await;
                let _ = stream.write_all(&begun).await;
                while stream.write_all(b" ").await.is_ok() {
                    let mut answer = [0; 1_000];
                    if let Ok(Ok(read)) =
                        tokio::time::timeout(Duration::from_millis(100), stream.read(&mut answer)).await
                    {
                        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
                        if !answer.starts_with("HTTP/1.1 503") {
                            return answer;
                        }
                        break;
                    }
                }
            }
        })
    }));
    let request = large(1_000_000);
    let ask = async || {
        let mut stream = connect(&server).await;
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        rest(&mut stream).await
    };
    let told = async {
        let others = async { while !ask().await.is_empty() {} };
        tokio::select! {
            (told, ..) = drips => told,
            () = others => panic!("an empty answer"),
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await.expect("one that drips is refused");
    assert!(told.starts_with("HTTP/1.1 408") && told.contains("too slowly"), "{told}");
    let served = async { while !ask().await.starts_with("HTTP/1.1 200") {} };
    tokio::time::timeout(PATIENCE, served).await.expect("others get on");
}

/// So many bodies at once that inflate to nothing in so many members: they are refused, and others are answered meanwhile.
async fn empty_members(bodies: usize, members: usize) {
    let server = Server::of("pick").await;
    let empty = [&b"\x1f\x8b\x08\0\0\0\0\0\0\xff"[..], &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let body = empty.repeat(members);
    let head = format!(
        "POST /v2/models/pick/infer HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: gzip\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    let refused = futures::future::join_all((0..bodies).map(|_| async {
        let mut stream = connect(&server).await;
        stream.write_all(&request).await.unwrap();
        rest(&mut stream).await
    }));
    let mut refused = std::pin::pin!(refused);
    let mut others = 0;
    let answers = loop {
        tokio::select! {
            answers = &mut refused => break answers,
            (status, _) = server.get("/health/live") => {
                assert_eq!(status, 200);
                others += 1;
            }
        }
    };
    for answer in answers {
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("compress it as one member"), "{answer}");
    }
    assert!(others >= 4, "only {others} others were answered meanwhile");
}

#[tokio::test]
async fn a_body_of_empty_members_holds_nobody_up() {
    empty_members(1, 50_000).await;
}

#[tokio::test]
#[ignore = "make test-long runs it"]
async fn long_a_body_of_empty_members_holds_nobody_up() {
    empty_members(8, 2_000_000).await;
}

#[tokio::test]
async fn web_pages_of_elsewhere_reach_no_path() {
    let mut settings = config(&models().join("pick"));
    let server = Server::ready(settings.clone()).await;
    let ask = async |server: &Server, head: &str| {
        let mut stream = connect(server).await;
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.unwrap();
        rest(&mut stream).await
    };
    for path in ["/", "/metrics", "/v2/models/pick", "/v1/models/pick:predict", "/v2/repository/models/pick/load", "/x"]
    {
        let rebound = ask(&server, &format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n")).await;
        assert!(rebound.starts_with("HTTP/1.1 421") && rebound.contains("allowed_hosts"), "{path} {rebound}");
        let origin =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\ncontent-length: 0\r\n");
        assert!(ask(&server, &origin).await.starts_with("HTTP/1.1 403"), "{path}");
    }
    for host in ["localhost", "127.0.0.1:8080", "[::1]:8080"] {
        assert!(ask(&server, &format!("GET /ready HTTP/1.1\r\nhost: {host}\r\n")).await.starts_with("HTTP/1.1 200"));
    }
    let grpc = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let call = grpc.post(format!("{}/inference.GRPCInferenceService/ServerLive", server.url));
    let answer = call.header("content-type", "application/grpc").header("origin", "https://evil.example").send().await;
    assert_eq!(answer.unwrap().headers()["grpc-status"], "7");
    // Whoever opened the loading of models to others opened it to no web page.
    (settings.host, settings.model_control) = ("0.0.0.0".into(), Some(true));
    settings.allowed_hosts = Vec::new();
    let mut open = Server::ready(settings.clone()).await;
    open.url = open.url.replace("0.0.0.0", "127.0.0.1");
    for path in ["/v2/repository/models/pick/unload", "/v2/%72epository/models/pick/unload"] {
        let rebound = format!("POST {path} HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0\r\n");
        assert!(ask(&open, &rebound).await.starts_with("HTTP/1.1 421"), "{path}");
    }
    assert!(ask(&open, "GET /ready HTTP/1.1\r\nhost: models.lan\r\n").await.starts_with("HTTP/1.1 200"));
    settings.allowed_hosts = vec!["models.lan".into()];
    let mut named = Server::ready(settings).await;
    named.url = named.url.replace("0.0.0.0", "127.0.0.1");
    assert!(ask(&named, "GET /ready HTTP/1.1\r\nhost: models.lan:80\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(ask(&named, "GET /ready HTTP/1.1\r\nhost: other.lan\r\n").await.starts_with("HTTP/1.1 421"));
}
