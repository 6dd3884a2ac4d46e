//! Requests that are wrong before their content matters: each is refused in the one form that all refusals have.

use modelway_control::Config;
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{PATIENCE, Plane, answer, plane, plane_with, sample};

const PATH: &str = "/v1/modelDeployment";

async fn post_raw(plane: &Plane, content_type: &str, body: impl Into<reqwest::Body>) -> crate::support::Answer {
    answer(plane.request(Method::POST, PATH).header("content-type", content_type).body(body)).await
}

#[tokio::test]
async fn malformed_json_is_refused_with_its_line_and_column() {
    let plane = plane().await;
    let refusal = post_raw(&plane, "application/json", "{\n  \"replicas\": ,\n}").await;
    refusal.refused(400, "malformed_json").saying("line 2 column 15");
    post_raw(&plane, "application/json", "").await.refused(400, "malformed_json").saying("empty");
    post_raw(&plane, "application/json", "{\"a\":1,\"a\":2}").await.refused(400, "duplicate_field").saying("`a`");
    post_raw(&plane, "application/json", vec![b'"', 0xff, b'"']).await.refused(400, "malformed_json");
    post_raw(&plane, "application/json", "[".repeat(10_000)).await.refused(400, "malformed_json");
    post_raw(&plane, "application/json", "[]").await.refused(422, "invalid_payload").saying("expected an object");
}

#[tokio::test]
async fn a_refusal_is_small_however_much_is_wrong() {
    let plane = plane().await;
    let long = "x".repeat(500_000);
    let unknown: Vec<_> = (0..80_000).map(|n| format!("\"f{n}\":1")).collect();
    for body in [
        format!("{{{}}}", unknown.join(",")),
        format!("{{\"model\":{{}},\"env\":{{{}}}}}", unknown.join(",")),
        format!("{{\"{long}\":1}}"),
        format!("{{\"{long}\":1,\"{long}\":2}}"),
        format!(
            "{{\"name\":\"{long}\",\"type\":\"{long}\",\"model\":{{\"bucket\":\"{long}\",\"version\":\"{long}\"}}}}"
        ),
        format!("{{\"request_res\":{{\"cpu\":\"{long}\"}},\"model\":{{\"name\":\"{long}\",\"version\":\"v1\"}}}}"),
        format!("{{\"model\":{{\"name\":\"{long}\",\"version\":\"v1\"}}}}"),
    ] {
        let refusal = post_raw(&plane, "application/json", body).await;
        assert!(refusal.status.is_client_error() && refusal.body.to_string().len() < 64 * 1024, "{}", refusal.body);
    }
    let query: Vec<_> = (0..8_000).map(|n| format!("f{n}")).collect();
    let refusal = plane.get(&format!("{PATH}?{}", query.join("&"))).await;
    refusal.refused(400, "invalid_query").saying("more than 100 faults");
    assert!(refusal.body.to_string().len() < 64 * 1024);
}

#[tokio::test]
async fn only_json_is_taken() {
    let plane = plane().await;
    let body = sample().to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
        post_raw(&plane, kind, body.clone()).await.refused(415, "unsupported_media_type").saying(kind);
    }
    let untyped = answer(plane.request(Method::POST, PATH).body(body)).await;
    untyped.refused(415, "unsupported_media_type").saying("absent");
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused_whether_it_says_its_length_or_not() {
    let plane = plane_with(Config { max_body_bytes: 1_000, ..Config::default() }).await;
    post_raw(&plane, "application/json", " ".repeat(1_001)).await.refused(413, "body_too_large").saying("1000 bytes");
    let chunks = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(" ".repeat(100))));
    let body = reqwest::Body::wrap_stream(chunks);
    post_raw(&plane, "application/json", body).await.refused(413, "body_too_large");
}

#[tokio::test]
async fn a_client_in_the_middle_of_a_huge_body_can_still_read_why_it_is_refused() {
    let plane = plane().await;
    for _ in 0..3 {
        post_raw(&plane, "application/json", vec![b' '; 30_000_000]).await.refused(413, "body_too_large");
        let chunks = futures::stream::iter((0..300).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100_000])));
        let body = reqwest::Body::wrap_stream(chunks);
        post_raw(&plane, "application/json", body).await.refused(413, "body_too_large");
        post_raw(&plane, "text/plain", vec![b' '; 30_000_000]).await.refused(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn what_is_no_http_is_told_what_is_wrong() {
    let plane = plane().await;
    let mut stream = TcpStream::connect(plane.address).await.expect("a connection");
    stream.write_all(b"rubbish\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("application/problem+json"), "{answer}");
    let problem: api::Problem = serde_json::from_str(body).expect("a problem");
    assert!(problem.code == "unreadable" && problem.detail.contains("first line"), "{body}");
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_is_told_so() {
    let plane = plane_with(Config { body_timeout_ms: 50, ..Config::default() }).await;
    let mut stream = TcpStream::connect(plane.address).await.expect("a connection");
    let head = "POST /v1/modelDeployment HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut told = vec![0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut told)).await.expect("in time").expect("an answer");
    assert_eq!(told, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_client_that_sends_no_head_is_let_go() {
    let plane = plane_with(Config { header_timeout_ms: 50, ..Config::default() }).await;
    for beginning in ["", "GET /v1/modelDepl"] {
        let mut stream = TcpStream::connect(plane.address).await.expect("a connection");
        stream.write_all(beginning.as_bytes()).await.expect("sent");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{beginning:?} keeps its connection");
    }
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let plane = plane().await;
    let refusal = answer(plane.request(Method::PUT, PATH)).await;
    refusal.refused(405, "method_not_allowed").saying("PUT");
    let allowed = refusal.header("allow");
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
}

#[tokio::test]
async fn an_unknown_path_names_near_ones() {
    let plane = plane().await;
    plane.get("/v1/modelDeployments").await.refused(404, "not_found").saying("/v1/modelDeployment");
    plane.get("/nothing/like/it").await.refused(404, "not_found").saying("/docs");
}

#[tokio::test]
async fn a_path_that_is_not_text_is_refused() {
    let plane = plane().await;
    plane.get("/v1/modelDeployment/%ff").await.refused(400, "malformed_path");
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told_so_at_once() {
    let plane = plane_with(Config { max_connections: 1, ..Config::default() }).await;
    let held = plane.get("/health/live").await;
    assert_eq!(held.status, 200);
    let mut second = TcpStream::connect(plane.address).await.expect("a connection");
    let mut told = String::new();
    tokio::time::timeout(PATIENCE, second.read_to_string(&mut told)).await.expect("at once").expect("text");
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("control.max_connections"), "{told}");
}

#[tokio::test]
async fn a_request_keeps_the_id_that_it_came_with() {
    let plane = plane().await;
    let with = answer(plane.request(Method::GET, "/health/live").header("x-request-id", "abc-1")).await;
    assert_eq!(with.header("x-request-id"), "abc-1");
    assert_eq!(plane.get("/nothing").await.header("x-request-id").len(), 36);
}
