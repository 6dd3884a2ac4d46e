//! Clients that are too many, too slow or too long: everybody else is served, in bounded memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use base::serve::conformance::{Subject, suite};
use bytes::Bytes;
use futures::StreamExt as _;
use harness::{
    Control, Gateway, Manner, Replica, config, eventually,
    grpc::{begin, call, framed, infer, pieces, send, whole},
    read_all, route,
};
use http_body_util::Full;
use modelway_gateway::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

async fn simple(change: impl FnOnce(&mut Config), manner: Manner) -> (Replica, Control, Gateway) {
    let replica = Replica::start("a", manner).await;
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&replica])));
    let mut config = Config { control_url: control.url(), ..config() };
    change(&mut config);
    let gateway = Gateway::with(config).await;
    gateway.until_known("md-1").await;
    (replica, control, gateway)
}

fn resident_mb() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 / 1024
}

#[tokio::test]
async fn a_body_of_a_gigabyte_is_refused_at_once_by_its_length() {
    let (replica, _control, gateway) = simple(|_| {}, Manner::Well).await;
    let mut stream = gateway.raw().await;
    let head = "POST /v2/models/iris/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1073741824\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("gateway.max_body_bytes"), "{answer}");
    assert_eq!(replica.requests(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_without_a_length_is_refused_when_it_gets_too_long_and_costs_no_memory() {
    let (_replica, _control, gateway) = simple(|_| {}, Manner::Well).await;
    let before = resident_mb();
    let piece = bytes::Bytes::from(vec![b'x'; 1 << 16]);
    let body = futures::stream::iter(0..16_384).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    let sent = gateway.client.post(gateway.url("/v2/models/iris/infer")).body(reqwest::Body::wrap_stream(body)).send();
    match sent.await {
        Ok(response) => assert_eq!(response.status(), 413),
        // The client may be too busy sending to read the answer before the connection ends.
        Err(error) => assert!(error.is_request() || error.is_body(), "{error:?}"),
    }
    let grown = resident_mb().saturating_sub(before);
    assert!(grown < 100, "a gigabyte grew this process by {grown} MB");
    assert_eq!(gateway.infer("iris").await.0, 200, "the next one is served");
    gateway.stop().await;
}

#[tokio::test]
async fn a_watch_takes_a_place_among_the_requests_in_flight() {
    let (_replica, _control, gateway) = simple(|config| config.max_in_flight = 1, Manner::Grpc).await;
    let watch = || begin(&gateway, "grpc.health.v1.Health/Watch", &[], Full::<Bytes>::from(framed(&[])));
    let watched = watch().await;
    let (status, words) = (call(&gateway, "ModelInfer", &infer("iris")).await, whole(watch().await).await);
    for refused in [&status, &words] {
        let (status, words) = refused.status();
        assert!(status == "14" && words.contains("gateway.max_in_flight"), "{status} {words}");
    }
    drop(watched);
    eventually("the place to be free", || async {
        if call(&gateway, "ModelInfer", &infer("iris")).await.status().0 == "0" { Ok(()) } else { Err(()) }
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn the_beginning_of_a_stream_counts_among_the_bodies_in_memory_until_the_replica_takes_it() {
    let (_replica, _control, gateway) = simple(|_| {}, Manner::DeafGrpc).await;
    let mut message = infer("iris");
    // A field of 500,000 bytes.
    message.extend_from_slice(&[0x3a, 0xa0, 0xc2, 0x1e]);
    message.resize(message.len() + 500_000, 0);
    let body = Full::<Bytes>::from(framed(&message));
    let stream = begin(&gateway, "inference.GRPCInferenceService/ModelStreamInfer", &[], body);
    let held = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("modelway_gateway_held_bytes "));
        line.and_then(|count| count.parse::<usize>().ok()).unwrap()
    };
    tokio::select! {
        _ = stream => panic!("the replica answered"),
        () = gateway.until("the beginning to count", "/metrics", |text| held(text) > 400_000) => {}
    }
    gateway.until("the beginning to be let go", "/metrics", |text| held(text) == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_call_that_gets_no_memory_before_its_model_is_known_is_to_be_tried_again() {
    let (replica, _control, gateway) = simple(|config| config.buffer_total_bytes = 4, Manner::Grpc).await;
    let path = "inference.GRPCInferenceService/ModelInfer";
    let reply = send(&gateway, path, None, pieces(&framed(&infer("iris")), 5)).await;
    let (status, words) = reply.status();
    assert!(status == "14" && words.contains("gateway.buffer_total_bytes; try again"), "{status} {words}");
    assert_eq!(replica.requests(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_long_body_streams_through() {
    let (replica, _control, gateway) = simple(|_| {}, Manner::Well).await;
    let length = 20 << 20;
    let (code, _, text) = gateway.post("/v2/models/iris/infer", vec![b'x'; length]).await;
    assert_eq!((code, text), (200, format!("a /v2/models/iris/infer {length}")));
    let piece = bytes::Bytes::from(vec![b'x'; 1 << 16]);
    let body = futures::stream::iter(0..64).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    let (code, _, text) = gateway.post("/v2/models/iris/infer", reqwest::Body::wrap_stream(body)).await;
    assert_eq!((code, text), (200, format!("a /v2/models/iris/infer {}", 4 << 20)), "also without a length");
    assert_eq!(replica.bytes.load(Ordering::SeqCst), 24 << 20);
    gateway.until("bodies to be let go", "/metrics", |text| text.contains("modelway_gateway_held_bytes 0")).await;
    gateway.stop().await;
}

#[tokio::test]
async fn headers_that_trickle_in_are_408() {
    let (_replica, _control, gateway) = simple(|config| config.header_timeout_ms = 500, Manner::Well).await;
    let mut stream = gateway.raw().await;
    stream.write_all(b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: loc").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("gateway.header_timeout_ms"), "{answer}");
    gateway.stop().await;
}

#[tokio::test]
async fn its_listener_does_what_every_listener_does() {
    let limits = |config: &mut Config| {
        (config.max_connections, config.header_timeout_ms, config.idle_timeout_ms) = (50, 500, 1_000);
    };
    let (_replica, _control, gateway) = simple(limits, Manner::Well).await;
    suite(Subject { address: gateway.addr, connections: 50, path: "/v2/health/live" }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_no_http_is_told_what_is_wrong() {
    let (_replica, _control, gateway) = simple(|_| {}, Manner::Well).await;
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let get = "GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n";
    for (sent, status, words) in [
        ("rubbish\r\n\r\n".to_owned(), 400, "cannot be read as HTTP/1.1"),
        (format!("{get}x y: 1\r\n\r\n"), 400, "cannot be read as HTTP/1.1"),
        (format!("{get}{many}\r\n"), 431, "at most 100 headers"),
        (format!("{get}x: {}\r\n\r\n", "y".repeat(500_000)), 431, "256 KiB"),
        (format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(70_000)), 414, "64 KiB"),
    ] {
        let mut stream = gateway.raw().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        assert!(
            serde_json::from_str::<serde_json::Value>(body).unwrap()["error"].as_str().unwrap().contains(words),
            "{body}"
        );
    }
    // Behind a good request, whose answer comes first and whole.
    let mut stream = gateway.raw().await;
    stream.write_all(format!("{get}\r\nrubbish\r\n\r\n").as_bytes()).await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"live\":true"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400 ") && answer.ends_with("}"), "{answer}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_ends_its_half_after_its_request_gets_its_answer() {
    let (_replica, _control, gateway) = simple(|config| config.buffer_body_bytes = 100, Manner::Late(2_500)).await;
    let one = |body: usize, more: &str| {
        let head =
            format!("POST /v2/models/iris/infer HTTP/1.1\r\nhost: localhost\r\n{more}content-length: {body}\r\n\r\n");
        head + &"x".repeat(body)
    };
    // Kept alive and not, held and sent on, and two of them one behind the other.
    let sent = [one(2, ""), one(2, "connection: close\r\n"), one(200_000, ""), one(2, "") + &one(3, "")];
    let answers = sent.map(|sent| {
        let gateway = &gateway;
        async move {
            let mut stream = gateway.raw().await;
            stream.write_all(sent.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            read_all(&mut stream).await
        }
    });
    let answers = futures::future::join_all(answers).await;
    for (answer, lengths) in answers.iter().zip([&[2][..], &[2], &[200_000], &[2, 3]]) {
        let finals = answer.matches("HTTP/1.1 200 OK").count();
        assert_eq!(finals, lengths.len(), "{answer}");
        for length in lengths {
            assert!(answer.contains(&format!("a /v2/models/iris/infer {length}")), "{answer}");
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_is_gone_gives_its_place_back() {
    let (replica, _control, gateway) = simple(|config| config.max_in_flight_per_deployment = 1, Manner::Never).await;
    let mut stream = gateway.raw().await;
    let head = b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(head).await.unwrap();
    eventually("it to be there", || async { (replica.requests() == 1).then_some(()).ok_or(()) }).await;
    assert_eq!(gateway.infer("iris").await.0, 429, "the place is taken");
    drop(stream);
    replica.behave(Manner::Well);
    eventually("the place", || async { Some(gateway.infer("iris").await.0).filter(|it| *it == 200).ok_or(()) }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408() {
    let (_replica, _control, gateway) = simple(|config| config.body_idle_timeout_ms = 300, Manner::Well).await;
    for length in ["100", "2000000"] {
        let mut stream = gateway.raw().await;
        let head =
            format!("POST /v2/models/iris/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{length}: {answer}");
        assert!(answer.contains("gateway.body_idle_timeout_ms"), "{answer}");
    }
    assert_eq!(gateway.infer("iris").await.0, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_that_drips_ends_and_keeps_nobody_out_meanwhile() {
    let (replica, _control, gateway) = simple(
        |config| {
            config.body_idle_timeout_ms = 700;
            config.max_in_flight_per_deployment = 2;
        },
        Manner::Well,
    )
    .await;
    // One is held, the other is sent on while it comes.
    for length in ["1000", "2000000"] {
        let mut stream = gateway.raw().await;
        let head =
            format!("POST /v2/models/iris/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let begun = Instant::now();
        let mut answer = [0; 12];
        loop {
            let read = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut answer)).await;
            if read.is_ok_and(|read| read.is_ok()) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{length}: it drips for ever");
            let _late = stream.write_all(b"x").await;
            assert_eq!(gateway.infer("iris").await.0, 200, "{length}: another one is served");
        }
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408", "{length}");
    }
    assert!(replica.requests() > 0);
    gateway.stop().await;
}

#[tokio::test]
async fn bodies_that_do_not_come_take_no_places_of_others() {
    let (_replica, _control, gateway) = simple(|config| config.max_in_flight_per_deployment = 8, Manner::Well).await;
    let mut slow = Vec::new();
    for length in ["1000", "2000000"] {
        for _ in 0..8 {
            let mut stream = gateway.raw().await;
            let head =
                format!("POST /v2/models/iris/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\nx");
            stream.write_all(head.as_bytes()).await.unwrap();
            slow.push(stream);
        }
    }
    let places = |text: &str| text.contains(r#"requests_in_flight{deployment="md-1"} 4"#);
    gateway.until("half of the places to be taken", "/metrics", places).await;
    for _ in 0..20 {
        let (code, _, text) = gateway.infer("iris").await;
        assert_eq!(code, 200, "{text}");
    }
    drop(slow);
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_a_while() {
    let limits = |config: &mut Config| (config.header_timeout_ms, config.idle_timeout_ms) = (500, 500);
    let (_replica, _control, gateway) = simple(limits, Manner::Well).await;
    let mut stream = gateway.raw().await;
    assert_eq!(read_all(&mut stream).await, "");
    let mut stream = gateway.raw().await;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200 "), "also after a request");
    gateway.stop().await;
}

#[tokio::test]
async fn thousands_of_idle_connections_disturb_nobody() {
    let limit = base::net::raise_open_files().unwrap();
    let many = usize::try_from(limit / 3).unwrap().min(5_000);
    let (_replica, _control, gateway) = simple(|_| {}, Manner::Well).await;
    let before = resident_mb();
    let mut idle = Vec::new();
    for _ in 0..many {
        idle.push(gateway.raw().await);
    }
    let open = format!("modelway_gateway_connections {}", many + 1);
    gateway.until("all to be open", "/metrics", |text| text.contains(&open)).await;
    let begun = Instant::now();
    assert_eq!(gateway.infer("iris").await.0, 200);
    assert!(begun.elapsed() < Duration::from_secs(2));
    let grown = resident_mb().saturating_sub(before);
    assert!(grown < 100, "{many} connections cost {grown} MB");
    drop(idle);
    gateway.until("all to be gone", "/metrics", |text| text.contains("modelway_gateway_connections 1\n")).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_beyond_the_bound_is_told_so() {
    let (_replica, _control, gateway) = simple(|config| config.max_connections = 3, Manner::Well).await;
    let mut held = Vec::new();
    let told = loop {
        let mut stream = gateway.raw().await;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut first = vec![0; 4096];
        let length = stream.read(&mut first).await.unwrap();
        let answer = String::from_utf8_lossy(&first[..length]).into_owned();
        if answer.starts_with("HTTP/1.1 503 ") {
            break answer;
        }
        held.push(stream);
        assert!(held.len() <= 3, "{} connections are open", held.len());
    };
    assert!(told.contains("gateway.max_connections") && told.contains("retry-after"), "{told}");
    drop(held);
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_beyond_the_bound_reads_its_answer_although_it_goes_on_sending() {
    let (_replica, _control, gateway) = simple(|config| config.max_connections = 1, Manner::Well).await;
    let mut held = gateway.raw().await;
    held.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    held.read_exact(&mut first).await.unwrap();
    for _ in 0..20 {
        let mut stream = gateway.raw().await;
        let body = vec![b'x'; 1 << 20];
        stream
            .write_all(b"POST /v1/models/iris:predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1048576\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with('}'), "{answer}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn requests_beyond_the_bounds_are_told_which_bound_and_when_to_come_again() {
    let (replica, control, gateway) = simple(
        |config| {
            config.max_in_flight_per_deployment = 2;
            config.max_in_flight = 3;
        },
        Manner::Never,
    )
    .await;
    control.set(2, Some(route("digits", &[&replica])));
    gateway.until_known("digits").await;
    let hanging: Vec<_> = ["iris", "iris", "digits"]
        .map(|name| {
            let request = gateway.client.post(gateway.url(&format!("/v2/models/{name}/infer"))).body("{}");
            base::Tasks::new().spawn(request.send())
        })
        .into();
    eventually("all to be in flight", || async { (replica.requests() == 3).then_some(()).ok_or(replica.requests()) })
        .await;
    let (code, headers, text) = gateway.infer("digits").await;
    assert_eq!(code, 503);
    assert!(headers.contains_key("retry-after") && text.contains("gateway.max_in_flight"), "{text}");
    hanging[2].abort();
    let mut last = (0, String::new());
    let begun = Instant::now();
    while last.0 != 429 && begun.elapsed() < Duration::from_secs(10) {
        let (code, _, text) = gateway.infer("iris").await;
        last = (code, text);
    }
    assert_eq!(last.0, 429, "{}", last.1);
    assert!(last.1.contains("gateway.max_in_flight_per_deployment"), "{}", last.1);
    for request in hanging {
        request.abort();
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let (_replica, _control, gateway) = simple(|config| config.write_timeout_ms = 500, Manner::Well).await;
    // Pipelined requests whose answers nobody reads fill every buffer on the way.
    let mut stream = gateway.raw().await;
    let request = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
    let flood = async {
        loop {
            if stream.write_all(&request).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), flood).await.expect("the gateway ends the connection");
    gateway.stop().await;
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_closes_idle_connections() {
    let (replica, _control, gateway) = simple(|_| {}, Manner::Late(500)).await;
    let mut idle = gateway.raw().await;
    let request = gateway.client.post(gateway.url("/v2/models/iris/infer")).body("{}");
    let answering = base::Tasks::new().spawn(request.send());
    eventually("the request to arrive", || async { (replica.requests() == 1).then_some(()).ok_or("not yet") }).await;
    gateway.begin_stop();
    let response = answering.await.unwrap().expect("it is answered");
    assert_eq!(response.status(), 200);
    assert_eq!(read_all(&mut idle).await, "");
    let addr = gateway.addr;
    gateway.stop().await;
    assert!(TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}
