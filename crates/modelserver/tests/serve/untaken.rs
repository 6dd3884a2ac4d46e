//! What events hold while their client takes nothing: it is counted, and bounded in time.

use bytes::Bytes;
use modelserver::proto::{
    ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient as Client,
    model_infer_request::InferInputTensor,
};
use serde_json::json;
use tonic::{Code, transport::Channel};

use crate::support::{PATIENCE, Server, config, models};

/// Room for one of the large answers, and not for two.
const ROOM: usize = 6 << 20;
const LARGE: usize = 500_000;
/// Rows of an event that fits beside its request.
const EVENT: usize = 350_000;

async fn server(write_timeout_ms: u64) -> Server {
    let mut settings = config(&models().join("identity/FP32"));
    (settings.bodies_limit_bytes, settings.write_timeout_ms) = (ROOM, write_timeout_ms);
    Server::ready(settings).await
}

async fn client(server: &Server) -> Client<Channel> {
    Client::connect(server.url.clone()).await.unwrap().max_decoding_message_size(usize::MAX)
}

/// Rows of 8 bytes that come back.
fn rows(rows: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "FP32".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![i64::try_from(rows).unwrap(), 2],
            ..Default::default()
        }],
        raw_input_contents: vec![Bytes::from(vec![0; rows * 8])],
        ..Default::default()
    }
}

/// Whether a large request finds room; if it does not, the answer says which setting bounds it.
async fn finds_room(server: &Server) -> bool {
    match client(server).await.model_infer(rows(LARGE)).await {
        Ok(_) => true,
        Err(status) => {
            assert!(
                status.code() == Code::ResourceExhausted && status.message().contains("serve.bodies_limit_bytes"),
                "{status}"
            );
            false
        }
    }
}

async fn until_room(server: &Server) {
    let free = async { while !finds_room(server).await {} };
    tokio::time::timeout(PATIENCE, free).await.expect("the memory is given back");
}

/// Sends a request over HTTP/2 and takes the beginning of its answer, which is more than the client's window.
async fn begun(server: &Server, path: &str, kind: &str, body: Vec<u8>) -> reqwest::Response {
    let http = reqwest::Client::builder()
        .http2_prior_knowledge()
        .http2_initial_stream_window_size(1 << 16)
        .http2_initial_connection_window_size(1 << 16)
        .build()
        .unwrap();
    let call = http.post(format!("{}{path}", server.url)).header("content-type", kind).body(body);
    let mut answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.chunk().await.unwrap().unwrap().is_empty());
    answer
}

async fn begun_events(server: &Server) -> reqwest::Response {
    let body = json!({"x": vec![[0, 0]; EVENT]}).to_string();
    begun(server, "/v2/models/FP32/generate_stream", "application/json", body.into_bytes()).await
}

#[tokio::test]
async fn events_are_counted_until_it_is_taken() {
    let server = server(3_600_000).await;
    let answer = begun_events(&server).await;
    assert!(!finds_room(&server).await);
    assert!(answer.bytes().await.unwrap().len() > EVENT * 3);
    until_room(&server).await;
}

#[tokio::test]
async fn events_that_nobody_takes_are_cut_off() {
    let server = server(300).await;
    let events = begun_events(&server).await;
    until_room(&server).await;
    assert!(events.bytes().await.is_err(), "it was cut off");
}
