//! Models that stream: whoever hangs up, reads slowly or waits too long costs his own request, and nothing else.

use std::{path::Path, time::Duration};

use modelserver::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{PATIENCE, Server, config, python};

const STREAM: &str = "/v2/models/streamer/generate_stream";

async fn server() -> Server {
    let mut settings = config(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/python/streamer.py"));
    settings.python = Some(python().display().to_string());
    Server::ready(settings).await
}

/// A request that is sent and not read.
async fn open(server: &Server, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let body = body.to_string();
    let length = body.len();
    let request = format!("POST {STREAM} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until these words have come.
async fn read_to(stream: &mut TcpStream, words: &str) -> String {
    let mut got = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&got).contains(words) {
            assert!(stream.read_buf(&mut got).await.unwrap() > 0, "{}", String::from_utf8_lossy(&got));
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no {words}"));
    String::from_utf8(got).unwrap()
}

/// The only worker is free again: it answers at once.
async fn is_free(server: &Server) {
    let mut stream = open(server, &json!({"x": [1], "most": 2})).await;
    let got = read_to(&mut stream, "0\r\n\r\n").await;
    assert!(got.contains(":0}") && got.contains(":1}") && !got.contains("error"), "{got}");
}

async fn is_closed(file: &Path) {
    let closed = async {
        while std::fs::read(file).unwrap() != b"closed" {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the generator is closed");
}

#[tokio::test]
async fn a_caller_who_hangs_up_closes_the_generator_and_frees_the_worker() {
    let server = server().await;
    for pause in [0.0, 0.01] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let body = json!({"x": [1], "pause": pause, "closed": file.path()});
        let mut stream = open(&server, &body).await;
        read_to(&mut stream, ":3}").await;
        drop(stream);
        is_closed(file.path()).await;
        is_free(&server).await;
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_over_grpc_closes_the_generator_too() {
    let server = server().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let contents = InferTensorContents { fp32_contents: vec![1.0], ..Default::default() };
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1],
        contents: Some(contents),
        ..Default::default()
    };
    let text = ParameterChoice::StringParam(file.path().display().to_string());
    let request = ModelInferRequest {
        model_name: "streamer".into(),
        inputs: vec![input],
        parameters: [("closed".to_owned(), InferParameter { parameter_choice: Some(text) })].into(),
        ..Default::default()
    };
    let mut client = GrpcInferenceServiceClient::connect(server.url.clone()).await.unwrap();
    let mut answers = client.model_stream_infer(tokio_stream::iter([request])).await.unwrap().into_inner();
    for number in 0..3 {
        let answer = answers.message().await.unwrap().unwrap();
        let made = answer.infer_response.unwrap().outputs[0].contents.clone().unwrap().int64_contents;
        assert_eq!((answer.error_message.as_str(), made), ("", vec![number]));
    }
    drop(answers);
    is_closed(file.path()).await;
    is_free(&server).await;
}

#[tokio::test]
async fn a_caller_who_does_not_read_is_left_in_bounded_time_and_memory() {
    let server = server().await;
    let [closed, made] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
    // An event has 10,000 numbers and a comma behind each: 20 KB at least.
    let body = json!({"x": [1], "wide": 10_000, "closed": closed.path(), "made": made.path()});
    let _unread = open(&server, &body).await;
    is_closed(closed.path()).await;
    // What was made lies in the sockets of both sides, which take 10 MB at most, and in the server.
    let made: usize = std::fs::read_to_string(made.path()).unwrap().parse().unwrap();
    assert!(made > 0 && made * 20_000 < 30 << 20, "{made} events were made for a client that reads none");
    is_free(&server).await;
}

#[tokio::test]
async fn who_wants_one_answer_is_not_given_the_last_of_several() {
    let server = server().await;
    for (path, field) in [("/v2/models/streamer/infer", "inputs"), ("/v1/models/streamer:predict", "instances")] {
        let ask = |most: i32| {
            let v2 = json!([{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]);
            let given = if field == "inputs" { v2 } else { json!([1]) };
            json!({field: given, "parameters": {"most": most}})
        };
        let (status, answer) = server.post(path, &ask(1)).await;
        assert_eq!(status, 200, "{answer}");
        let (status, answer) = server.post(path, &ask(2)).await;
        let said = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && said.contains("more than one answer to this: ask for generate_stream"), "{answer}");
        is_free(&server).await;
    }
}

#[tokio::test]
async fn what_goes_wrong_in_the_middle_is_the_last_event() {
    let server = server().await;
    let mut stream = open(&server, &json!({"x": [1], "most": 3, "fault": true})).await;
    let got = read_to(&mut stream, "0\r\n\r\n").await;
    assert!(got.starts_with("HTTP/1.1 200") && got.contains(":2}"), "{got}");
    assert!(got.contains("data: {\"error\":") && got.contains("ValueError: no more numbers"), "{got}");
    let began = std::time::Instant::now();
    let mut stream = open(&server, &json!({"x": [1], "pause": 0.01, "timeout": 300_000})).await;
    let got = read_to(&mut stream, "0\r\n\r\n").await;
    assert!(got.contains(":2}") && got.contains("no answer within 300 ms"), "{got}");
    assert!(began.elapsed() >= Duration::from_millis(300));
    is_free(&server).await;
}

#[tokio::test]
async fn a_stream_has_its_time_between_pieces_and_is_finished_when_the_server_ends() {
    let mut settings = config(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/python/streamer.py"));
    settings.python = Some(python().display().to_string());
    settings.request_timeout_ms = 900;
    let mut server = Server::ready(settings).await;
    // Longer than the time for one piece, and whole.
    let began = std::time::Instant::now();
    let mut stream = open(&server, &json!({"x": [1], "most": 8, "pause": 0.2})).await;
    let got = read_to(&mut stream, "0\r\n\r\n").await;
    assert!(got.contains(":7}") && !got.contains("error"), "{got}");
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    let mut stream = open(&server, &json!({"x": [1], "most": 2, "pause": 4.0})).await;
    let got = read_to(&mut stream, "0\r\n\r\n").await;
    assert!(got.contains(":0}") && got.contains("no answer within 900 ms") && !got.contains(":1}"), "{got}");
    is_free(&server).await;
    // A client that half-closes gets all of it, and comments that say nothing.
    let mut stream = open(&server, &json!({"x": [1], "most": 7, "pause": 0.25})).await;
    stream.shutdown().await.unwrap();
    let got = read_to(&mut stream, "0\r\n\r\n").await;
    assert!(got.contains(":6}") && !got.contains("error"), "{got}");
    let mut stream = open(&server, &json!({"x": [1], "most": 4, "pause": 0.2})).await;
    read_to(&mut stream, ":0}").await;
    server.tasks.stop();
    let got = read_to(&mut stream, "0\r\n\r\n").await;
    assert!(got.contains(":3}") && !got.contains("error"), "{got}");
    assert!(server.end().await.is_ok());
}
