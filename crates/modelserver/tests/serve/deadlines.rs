//! The time that a caller of gRPC gives its call.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use modelserver::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{PATIENCE, Server, config, python};

async fn server() -> Server {
    let mut settings = config(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/python/streamer.py"));
    settings.python = Some(python().display().to_string());
    Server::ready(settings).await
}

/// Asks for `most` numbers, with a pause of a minute after each.
fn ask(most: i64) -> Vec<u8> {
    let contents = InferTensorContents { fp32_contents: vec![1.0], ..Default::default() };
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1],
        contents: Some(contents),
        ..Default::default()
    };
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let request = ModelInferRequest {
        model_name: "streamer".into(),
        inputs: vec![input],
        parameters: [
            ("most".to_owned(), parameter(ParameterChoice::Int64Param(most))),
            ("pause".to_owned(), parameter(ParameterChoice::DoubleParam(60.0))),
        ]
        .into(),
        ..Default::default()
    };
    framed(&request.encode_to_vec())
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// A call whose caller sends `body`, and then neither more nor the end if it is left `open`: what came, the status and its
/// words.
async fn call(server: &Server, path: &str, timeout: &str, body: Vec<u8>, open: bool) -> (Bytes, String, String) {
    let stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driven = server.tasks.spawn(connection);
    let first = futures::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from(body)))]);
    let rest = futures::stream::pending().take(usize::from(open));
    let request = Request::post(format!("{}/{path}", server.url))
        .header("content-type", "application/grpc")
        .header("grpc-timeout", timeout)
        .body(StreamBody::new(first.chain(rest).boxed()))
        .unwrap();
    let answered = async {
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        (parts.headers, body.trailers().cloned().unwrap_or_default(), body.to_bytes())
    };
    let (headers, trailers, came) = tokio::time::timeout(PATIENCE, answered).await.expect("an end in time");
    drop(driven);
    let find = |name: &str| {
        let of = |headers: &HeaderMap| headers.get(name).map(|value| value.to_str().unwrap().replace("%20", " "));
        of(&trailers).or_else(|| of(&headers)).unwrap_or_default()
    };
    (came, find("grpc-status"), find("grpc-message"))
}

#[tokio::test]
async fn a_call_ends_when_its_callers_own_time_is_up_and_so_does_its_run() {
    let server = server().await;
    let infer = "inference.GRPCInferenceService/ModelInfer";
    let stream = "inference.GRPCInferenceService/ModelStreamInfer";
    for (path, body, open, answers) in [
        (infer, ask(1), false, false),
        (stream, ask(2), true, true),
        // The time is up before the message is there, and before the next one comes.
        (infer, ask(1)[..9].to_vec(), true, false),
        (stream, Vec::new(), true, false),
        ("grpc.health.v1.Health/Watch", framed(&[]), false, true),
    ] {
        let began = Instant::now();
        let (came, status, words) = call(&server, path, "700m", body, open).await;
        assert_eq!(status, "4", "{path}: {words}");
        assert_eq!(words, "the call took longer than its own grpc-timeout", "{path}");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(20), "{path}: {took:?}");
        assert_eq!(!came.is_empty(), answers, "{path}: {came:?}");
    }
    // The one worker is free again.
    let (status, answer) = server.post("/v2/models/streamer/generate", &json!({"x": [1], "most": 1})).await;
    assert_eq!(status, 200, "{answer}");
    for wrong in ["1", "1s", "123456789S", "-1S"] {
        let (_, status, words) = call(&server, infer, wrong, ask(1), false).await;
        assert!(status == "3" && words.contains(wrong) && words.contains("eight digits"), "{wrong}: {status} {words}");
    }
}
