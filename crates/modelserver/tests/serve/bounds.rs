use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{PATIENCE, Server, UnderWay, client, config, models, refused};

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap()
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    // The server may reset a connection whose body it did not read, after its answer.
    if answer.is_empty() {
        read.unwrap();
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let mut settings = config(&models().join("pick"));
    settings.body_limit_bytes = 1_000;
    let server = Server::ready(settings).await;
    let mut stream = connect(&server).await;
    stream
        .write_all(b"POST /v2/models/pick/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000000\r\n\r\n{")
        .await
        .unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("larger than 1000 bytes"), "{answer}");
    // Without a length, it is counted.
    let mut stream = connect(&server).await;
    let head = b"POST /v2/models/pick/infer HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    for _ in 0..3 {
        let _ = stream.write_all(format!("190\r\n{}\r\n", " ".repeat(400)).as_bytes()).await;
    }
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("serve.body_limit_bytes"), "{answer}");
    assert!(server.text("/metrics").await.contains(r#"error_type="too_large"} 2"#));
}

#[tokio::test]
async fn what_is_refused_by_its_head_is_answered_although_its_body_came_along() {
    let server = Server::of("pick").await;
    let head = "POST /v2/models/pick/infer HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: br\r\n";
    let mut stream = connect(&server).await;
    let not_chunks =
        "POST /v2/models/pick/infer HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\n";
    stream.write_all(not_chunks.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.to_lowercase().contains("chunk"), "{answer}");
    let mut stream = connect(&server).await;
    let unknown = "POST /v2/models/none/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 30000000\r\n\r\n";
    stream.write_all(unknown.as_bytes()).await.unwrap();
    let piece = vec![b' '; 100_000];
    for _ in 0..300 {
        stream.write_all(&piece).await.expect("what comes is read for a while");
    }
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let mut stream = connect(&server).await;
    let whole = format!("{head}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");
    stream.write_all(whole.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    let mut stream = connect(&server).await;
    let many = "x: y\r\n".repeat(1_000);
    stream.write_all(format!("{head}{many}\r\n").as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_body_that_stops_is_answered_and_its_connection_closed() {
    let mut settings = config(&models().join("pick"));
    settings.body_timeout_ms = 50;
    let server = Server::ready(settings).await;
    let mut stream = connect(&server).await;
    stream
        .write_all(b"POST /v2/models/pick/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("serve.body_timeout_ms"), "{answer}");
}

#[tokio::test]
async fn a_header_that_never_ends_closes_its_connection() {
    let mut settings = config(&models().join("pick"));
    settings.header_timeout_ms = 50;
    let server = Server::ready(settings).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"POST /v2/models/pick/infer HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("serve.header_timeout_ms"), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_is_told_what_is_wrong() {
    let server = Server::ready(config(&models().join("pick"))).await;
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let get = "GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n";
    for (sent, status, words) in [
        ("rubbish\r\n\r\n".to_owned(), 400, "cannot be read as HTTP/1.1"),
        (format!("{get}{many}\r\n"), 431, "at most 100 headers"),
        (format!("{get}x: {}\r\n\r\n", "y".repeat(2_000_000)), 431, "256 KiB"),
        (format!("{get}\r\nrubbish\r\n\r\n"), 200, "cannot be read as HTTP/1.1"),
    ] {
        let mut stream = connect(&server).await;
        // The last of a head that is too long may be refused by then.
        let _sent = stream.write_all(sent.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let (_, body) = answer.rsplit_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["error"].as_str().unwrap().contains(words), "{body}");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_a_free_place_is_used_again() {
    let mut settings = config(&models().join("pick"));
    settings.max_connections = 2;
    let server = Server::ready(settings).await;
    let (client, path) = (client(), format!("{}/health", server.url));
    let full = async {
        // The connections of the test's own preparation go by and by.
        loop {
            let held = [connect(&server).await, connect(&server).await];
            let mut third = connect(&server).await;
            let mut head = [0; 12];
            let first = tokio::time::timeout(Duration::from_millis(100), third.read_exact(&mut head)).await;
            if let Ok(Ok(_)) = first {
                break (held, head, rest(&mut third).await);
            }
        }
    };
    let (held, head, answer) = tokio::time::timeout(PATIENCE, full).await.expect("the limit holds");
    assert_eq!(&head, b"HTTP/1.1 503");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains(&format!("content-length: {}", body.len())) && body.contains("serve.max_connections"),
        "{answer}"
    );
    drop(held);
    let free = async { while !client.get(&path).send().await.is_ok_and(|answer| answer.status() == 200) {} };
    tokio::time::timeout(PATIENCE, free).await.expect("a free place is used again");
}

#[tokio::test]
async fn idle_connections_disturb_nobody() {
    let server = Server::of("pick").await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(connect(&server).await);
    }
    let body = json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [1]}]});
    assert_eq!(server.post("/v2/models/pick/infer", &body).await.0, 200);
}

fn rounds(rounds: u64) -> serde_json::Value {
    json!({"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]}]})
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_which_bound() {
    let mut settings = config(&models().join("slow"));
    settings.queue_limit = 1;
    let server = Server::ready(settings).await;
    let client = client();
    let infer =
        |count| client.post(format!("{}/v2/models/slow/infer", server.url)).body(rounds(count).to_string()).send();
    let others = base::Tasks::new();
    let endless = 1_000_000_000;
    let mut held = vec![UnderWay::send(&others, infer(endless))];
    // One runs when another has to wait, and a second one waits when the server says so.
    let mut soon = rounds(1);
    soon["parameters"] = json!({"timeout": 20_000});
    let runs = async { while server.post("/v2/models/slow/infer", &soon).await.0 != 503 {} };
    tokio::time::timeout(PATIENCE, runs).await.expect("the model is busy");
    held.push(UnderWay::send(&others, infer(endless)));
    let waiting = r#"model_queue_depth{model_name="slow",model_version="1"} 1"#;
    let full = async { while !server.text("/metrics").await.contains(waiting) {} };
    tokio::time::timeout(PATIENCE, full).await.expect("the queue fills");
    let answer = tokio::time::timeout(PATIENCE, infer(1)).await.expect("it is refused at once").unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(answer.headers()[api::replica::NOT_BEGUN_HEADER], "1");
    let body: serde_json::Value = answer.json().await.unwrap();
    assert!(body["error"].as_str().unwrap().contains("serve.queue_limit"), "{body}");
    // Callers that leave free the model: the run is ended, those that wait are skipped.
    drop(held);
    let free = async { while infer(1).await.unwrap().status() != 200 {} };
    tokio::time::timeout(PATIENCE, free).await.expect("the model is free again");
}

#[tokio::test]
async fn a_run_past_its_deadline_is_ended_and_the_next_one_answers() {
    let server = Server::of("slow").await;
    let mut body = rounds(100_000_000);
    body["parameters"] = json!({"timeout": 50_000});
    let said = refused(server.post("/v2/models/slow/infer", &body).await, 503);
    assert!(said.contains("no answer within 50 ms"), "{said}");
    let next = tokio::time::timeout(PATIENCE, server.post("/v2/models/slow/infer", &rounds(1))).await;
    assert_eq!(next.expect("the run was ended").0, 200);
    assert!(server.text("/metrics").await.contains(r#"error_type="timeout"} 1"#));
}

#[tokio::test]
async fn an_encoded_body_is_refused_by_its_encoding() {
    let server = Server::of("pick").await;
    let post = client().post(format!("{}/v2/models/pick/infer", server.url)).body("x");
    let answer = post.header("content-encoding", "br").send().await.unwrap();
    assert_eq!(answer.status(), 415);
}

#[tokio::test]
async fn bodies_together_are_bounded_in_memory() {
    let mut settings = config(&models().join("identity/FP32"));
    settings.bodies_limit_bytes = 1 << 20;
    let server = Server::ready(settings).await;
    let large =
        json!({"inputs": [{"name": "x", "shape": [50_000, 2], "datatype": "FP32", "data": vec![0.25; 100_000]}]});
    // On a busy machine the held body may count as slow before the large one needs its memory, and is refused for it: then
    // another takes its place.
    let full = async {
        loop {
            let mut held = connect(&server).await;
            held.write_all(
                b"POST /v2/models/FP32/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1100000\r\n\r\n{",
            )
            .await
            .unwrap();
            if held.write_all(&vec![b' '; 1_000_000]).await.is_err() {
                continue;
            }
            let answer = server.post("/v2/models/FP32/infer", &large).await;
            if answer.0 == 503 {
                break (held, refused(answer, 503));
            }
        }
    };
    let (held, said) = tokio::time::timeout(PATIENCE, full).await.expect("the budget is spent");
    assert!(said.contains("serve.bodies_limit_bytes"), "{said}");
    let small = json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]});
    assert_eq!(server.post("/v2/models/FP32/infer", &small).await.0, 200);
    drop(held);
    let free = async { while server.post("/v2/models/FP32/infer", &large).await.0 != 200 {} };
    tokio::time::timeout(PATIENCE, free).await.expect("what was held is given back");
}

#[tokio::test]
async fn under_load_everybody_gets_their_own_answer() {
    let mut settings = config(&models().join("pick"));
    settings.instances = 2;
    let server = Server::ready(settings).await;
    let client = client();
    let others = base::Tasks::new();
    let callers: Vec<_> = (0..16u64)
        .map(|caller| {
            let (client, url) = (client.clone(), format!("{}/v2/models/pick/infer", server.url));
            others.spawn(async move {
                for round in 0..20 {
                    let index = (caller + round) % 10;
                    let input = json!({"name": "index", "shape": [1], "datatype": "INT64", "data": [index]});
                    let body = json!({"id": format!("{caller}-{round}"), "inputs": [input]});
                    let answer = client.post(&url).body(body.to_string()).send().await.unwrap();
                    let answer: serde_json::Value = answer.json().await.unwrap();
                    assert_eq!(answer["id"], body["id"]);
                    let picked = answer["outputs"][0]["data"][0].as_f64();
                    assert_eq!(picked, Some(f64::from(u32::try_from(index).unwrap())));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let metrics = server.text("/metrics").await;
    assert!(metrics.contains(r#"model_predictions_total{model_name="pick",model_version="1"} 320"#), "{metrics}");
}
