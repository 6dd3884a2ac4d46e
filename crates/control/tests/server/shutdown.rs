//! The end in good order.

use std::time::{Duration, Instant};

use modelway_control::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{PATIENCE, Plane, plane, plane_with, sample};

/// A request whose head the server has read and whose body it waits for.
async fn in_flight(plane: &Plane, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(plane.address).await.expect("a connection");
    let head = format!(
        "POST /v1/modelDeployment HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut told = vec![0; 25];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut told)).await.expect("in time").expect("an answer");
    assert!(told.starts_with(b"HTTP/1.1 100"), "the request is in flight");
    stream
}

async fn ended(plane: Plane) {
    let ended = tokio::time::timeout(PATIENCE, plane.ended).await.expect("it ends").expect("without a panic");
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn what_is_in_flight_is_finished() {
    let plane = plane().await;
    let body = sample().to_string();
    let mut stream = in_flight(&plane, &body).await;
    plane.tasks.stop();
    stream.write_all(body.as_bytes()).await.expect("sent");
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut rest)).await.expect("in time").expect("text");
    assert!(rest.starts_with("HTTP/1.1 201"), "{rest}");
    let address = plane.address;
    ended(plane).await;
    assert!(TcpStream::connect(address).await.is_err(), "nothing is accepted any more");
}

#[tokio::test]
async fn idle_connections_do_not_hold_it_up() {
    let plane = plane().await;
    let silent = TcpStream::connect(plane.address).await.expect("a connection");
    assert_eq!(plane.get("/health/live").await.status, 200);
    plane.tasks.stop();
    let started = Instant::now();
    ended(plane).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(silent);
}

#[tokio::test]
async fn what_takes_longer_than_the_drain_time_is_cut_off() {
    let plane = plane_with(Config { drain_ms: 50, ..Config::default() }).await;
    let stream = in_flight(&plane, "{}").await;
    plane.tasks.stop();
    ended(plane).await;
    drop(stream);
}
