//! Logs are passed on from a worker.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Path, RawQuery},
    http::StatusCode,
    response::IntoResponse,
    routing::get,
};
use base::Clock;
use futures::StreamExt;
use modelway_control::Config;
use reqwest::Method;
use serde_json::json;
use store::WorkerRecord;
use tokio::net::TcpListener;

use crate::support::{PATIENCE, Plane, answer, plane, plane_with};

/// Without end, and as fast as it is read.
fn flood() -> Body {
    Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 65_536])))
}

/// Says what it was asked; follows without end.
fn worker() -> Router {
    let deployment = |Path(id): Path<String>, RawQuery(query): RawQuery| async move {
        let query = query.unwrap_or_default();
        let first = futures::stream::iter([Ok::<_, std::io::Error>(format!("deployment {id} {query}\n"))]);
        if query.contains("follow=true") {
            Body::from_stream(first.chain(futures::stream::pending()))
        } else {
            Body::from_stream(first)
        }
    };
    let replica = |Path(id): Path<String>, RawQuery(query): RawQuery| async move {
        if id.ends_with("-9") {
            return StatusCode::NOT_FOUND.into_response();
        }
        if id.ends_with("-7") {
            return flood().into_response();
        }
        format!("replica {id} {}\n", query.unwrap_or_default()).into_response()
    };
    Router::new().route("/v1/deployments/{id}/logs", get(deployment)).route("/v1/replicas/{id}/logs", get(replica))
}

async fn register(plane: &Plane, id: &str, address: String) {
    let (placement, seen_at) = ("local".into(), Clock::system().now().into());
    let record = WorkerRecord { id: id.into(), placement, scope: "test".into(), address, seen_at };
    plane.store.worker_seen(&record, Duration::from_secs(60)).await.expect("it is registered");
}

async fn with_worker(config: Config) -> Plane {
    let plane = plane_with(config).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    plane.tasks.spawn(async move { axum::serve(listener, worker()).await });
    register(&plane, "alive", address).await;
    plane
}

#[tokio::test]
async fn the_lines_come_from_a_worker_that_lives() {
    let plane = with_worker(Config::default()).await;
    // One that died a moment ago, and is asked first.
    register(&plane, "dead", "127.0.0.1:1".into()).await;
    let id = plane.create(&json!({})).await;
    let path = format!("/v1/modelDeployment/{id}/logs");
    let lines = plane.get(&path).await;
    assert_eq!(lines.status, 200, "{}", lines.body);
    assert_eq!(lines.body, format!("deployment {id} tail=100&follow=false\n"));
    assert_eq!(lines.header("content-type"), "text/plain; charset=utf-8");
    let one = plane.get(&format!("{path}?tail=5&replica=md-{id}-r1-0")).await;
    assert_eq!(one.body, format!("replica md-{id}-r1-0 tail=5&follow=false\n"));
    plane.get(&format!("{path}?replica=md-{id}-r1-9")).await.refused(404, "not_found").saying("cleaned up");
}

#[tokio::test]
async fn a_worker_without_the_log_does_not_speak_for_the_others() {
    let plane = with_worker(Config::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    plane.tasks.spawn(async move { axum::serve(listener, Router::new()).await });
    // Asked first, and answers 404 to all.
    register(&plane, "without", address).await;
    let id = plane.create(&json!({})).await;
    let lines = plane.get(&format!("/v1/modelDeployment/{id}/logs?tail=5")).await;
    assert_eq!(lines.status, 200, "{}", lines.body);
    assert_eq!(lines.body, format!("deployment {id} tail=5&follow=false\n"));
}

#[tokio::test]
async fn what_is_not_a_replica_of_the_deployment_is_not_asked_for() {
    let plane = with_worker(Config::default()).await;
    let id = plane.create(&json!({})).await;
    for replica in ["md-4711-r1-0", "..%2f..%2fhealth", "md-1%2f..%2fx"] {
        plane.get(&format!("/v1/modelDeployment/{id}/logs?replica={replica}")).await.refused(404, "not_found");
    }
    plane.get(&format!("/v1/modelDeployment/{id}/logs?tail=x&follow=1")).await.refused(400, "invalid_query");
    plane.get("/v1/modelDeployment/4711/logs").await.refused(404, "not_found");
}

#[tokio::test]
async fn without_a_worker_it_says_so() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    let refusal = plane.get(&format!("/v1/modelDeployment/{id}/logs")).await;
    refusal.refused(503, "worker_unavailable").saying("modelway worker");
    assert_eq!(refusal.header("retry-after"), "1");
}

#[tokio::test]
async fn a_followed_log_goes_on_and_ends_with_the_control_plane() {
    let plane = with_worker(Config::default()).await;
    let id = plane.create(&json!({})).await;
    let request = plane.request(Method::GET, &format!("/v1/modelDeployment/{id}/logs?follow=true"));
    let mut lines = request.send().await.expect("an answer").bytes_stream();
    let first = lines.next().await.expect("a line").expect("it arrives");
    assert_eq!(first, format!("deployment {id} tail=100&follow=true\n"));
    plane.tasks.stop();
    let rest = tokio::time::timeout(PATIENCE, lines.next()).await.expect("it ends");
    assert!(rest.is_none(), "it ends cleanly: {rest:?}");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go() {
    let plane = with_worker(Config { max_log_streams: 1, stall_timeout_ms: 300, ..Config::default() }).await;
    let id = plane.create(&json!({})).await;
    let path = format!("/v1/modelDeployment/{id}/logs");
    let stalled = plane.request(Method::GET, &format!("{path}?replica=md-{id}-r1-7")).send().await.expect("an answer");
    let freed = async {
        while plane.get(&path).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("its place is free again");
    drop(stalled);
}

#[tokio::test]
async fn a_log_that_is_read_no_more_frees_its_place() {
    let plane = with_worker(Config { max_log_streams: 1, ..Config::default() }).await;
    let id = plane.create(&json!({})).await;
    let path = format!("/v1/modelDeployment/{id}/logs");
    let held = plane.request(Method::GET, &format!("{path}?follow=true")).send().await.expect("an answer");
    plane.get(&path).await.refused(503, "busy").saying("control.max_log_streams");
    drop(held);
    let freed = async {
        while answer(plane.request(Method::GET, &path)).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("its place is free again");
}
