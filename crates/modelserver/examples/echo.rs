//! The least that a server of JSON can do, as the measure of our own: an axum handler that parses a V2 request and
//! sends the same back. `echo PORT`
//!
//! It runs on one thread, as it is measured on one core.

use std::net::Ipv4Addr;

use axum::{Json, Router, routing::post};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Body {
    inputs: Vec<Tensor>,
}

#[derive(Serialize, Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    data: Vec<f32>,
}

async fn echo(Json(body): Json<Body>) -> Json<Body> {
    Json(body)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: echo PORT");
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is free");
    axum::serve(listener, Router::new().route("/", post(echo))).await.expect("it serves");
}
