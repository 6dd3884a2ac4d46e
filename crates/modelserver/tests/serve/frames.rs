//! Clients that send HTTP/2 frames by hand, and leave or stop in the middle.

use std::{io::Write as _, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use modelserver::proto::{ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient as Client};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::Channel;

use crate::support::{PATIENCE, Server, config, models};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A field that is not indexed: the name's place in HPACK's static table, and the value.
fn field(name: u8, value: &str) -> Vec<u8> {
    // Four bits are too few for the larger places.
    let name = if name < 15 { vec![name] } else { vec![15, name - 15] };
    [&name, &[u8::try_from(value.len()).unwrap()][..], value.as_bytes()].concat()
}

/// A request to the model `identity/FP32`.
fn identity(rows: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "FP32".into(),
        inputs: vec![modelserver::proto::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![i64::try_from(rows).unwrap(), 2],
            ..Default::default()
        }],
        raw_input_contents: vec![Bytes::from(vec![0; rows * 8])],
        ..Default::default()
    }
}

/// A connection with these settings on which a request has begun; `method` is its place in HPACK's static table.
async fn ask(server: &Server, settings: &[u8], method: u8, path: &str, kind: &str, flags: u8) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let fields = [vec![0x80 | method, 0x86], field(1, "localhost"), field(4, path), field(31, kind)].concat();
    let sent = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, settings),
        frame(HEADERS, END_HEADERS | flags, 1, &fields),
    ];
    stream.write_all(&sent.concat()).await.unwrap();
    stream
}

/// Reads frames until `wanted` is told the kind and the flags of one that it wants. False: the connection ends before.
async fn read_until(stream: &mut TcpStream, mut wanted: impl FnMut(u8, u8) -> bool) -> bool {
    let read = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return false;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                return false;
            }
            if wanted(head[3], head[4]) {
                return true;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it comes in time")
}

#[tokio::test]
async fn an_answer_that_flow_control_holds_back_is_reset() {
    let mut settings = config(&models().join("pick"));
    settings.write_timeout_ms = 300;
    let server = Server::ready(settings).await;
    // No byte of any stream may be sent, and that never changes.
    let no_window = [0, 4, 0, 0, 0, 0];
    let began = std::time::Instant::now();
    let mut stream = ask(&server, &no_window, 2, "/metrics", "text/plain", END_STREAM).await;
    let mut data = false;
    assert!(
        read_until(&mut stream, |kind, _| {
            data |= kind == DATA;
            kind == RESET
        })
        .await
    );
    assert!(!data, "it has no window");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_that_leaves_while_it_sends_is_counted_as_one_that_left() {
    let server = Server::of("pick").await;
    let counted = async |left: u32| {
        let line = format!(r#"error_type="client_left"}} {left}"#);
        let counted = async { while !server.text("/metrics").await.contains(&line) {} };
        tokio::time::timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("no {line}"));
    };
    let path = "/v2/models/pick/infer";
    for (before, start) in
        [(0, "content-length: 100\r\n\r\n{\"inp"), (1, "transfer-encoding: chunked\r\n\r\n5\r\n{\"inp\r\n")]
    {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{start}");
        stream.write_all(head.as_bytes()).await.unwrap();
        drop(stream);
        counted(before + 1).await;
    }
    let mut stream = ask(&server, &[], 3, path, "application/json", 0).await;
    let cancel = [0, 0, 0, 8];
    stream.write_all(&[frame(DATA, 0, 1, b"{\"inp"), frame(RESET, 0, 1, &cancel)].concat()).await.unwrap();
    counted(3).await;
    let mut stream = ask(&server, &[], 3, path, "application/json", 0).await;
    // A connection that is closed at once may be reset before the server has read the request.
    stream.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
    assert!(read_until(&mut stream, |kind, flags| kind == PING && flags == 1).await);
    drop(stream);
    counted(4).await;
    // What is no chunk is the sender's mistake.
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let wrong = r#"error_type="invalid_input"} 1"#;
    let counted = async { while !server.text("/metrics").await.contains(wrong) {} };
    tokio::time::timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("no {wrong}"));
}

#[tokio::test]
async fn a_message_of_a_stream_that_only_trickles_in_ends_the_stream() {
    let mut settings = config(&models().join("pick"));
    (settings.request_timeout_ms, settings.body_timeout_ms) = (500, 60_000);
    let server = Server::ready(settings).await;
    let path = "/inference.GRPCInferenceService/ModelStreamInfer";
    let mut stream = ask(&server, &[], 3, path, "application/grpc", 0).await;
    stream.write_all(&frame(DATA, 0, 1, &[0, 0, 1, 0, 0])).await.unwrap();
    let (mut reads, mut writes) = stream.split();
    let trickle = async {
        while writes.write_all(&frame(DATA, 0, 1, b"x")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = async {
        let mut bytes = Vec::new();
        // The frame of trailers has both flags.
        while !bytes
            .windows(9)
            .any(|head| head[0] == 0 && head[3..9] == [HEADERS, END_HEADERS | END_STREAM, 0, 0, 0, 1])
        {
            assert!(reads.read_buf(&mut bytes).await.unwrap() > 0, "closed without trailers");
        }
    };
    tokio::select! {
        () = ended => {}
        () = trickle => panic!("the connection was closed"),
        () = tokio::time::sleep(PATIENCE) => panic!("it goes on"),
    }
}

#[tokio::test]
async fn a_compressed_message_holds_nobody_up() {
    let server = Server::of("pick").await;
    let mut zeros = GzEncoder::new(Vec::new(), Compression::fast());
    zeros.write_all(&vec![0; 60 << 20]).unwrap();
    let message = zeros.finish().unwrap();
    let body = [&[1][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for method in ["ModelInfer", "ModelStreamInfer"] {
        let url = format!("{}/inference.GRPCInferenceService/{method}", server.url);
        let call = client.post(url).header("content-type", "application/grpc").header("grpc-encoding", "gzip");
        let mut answer = std::pin::pin!(async { call.body(body.clone()).send().await.unwrap().bytes().await });
        let mut others = 0;
        loop {
            tokio::select! {
                _ = &mut answer => break,
                (status, _) = server.get("/health/live") => {
                    assert_eq!(status, 200);
                    others += 1;
                }
            }
        }
        assert!(others >= 5, "only {others} others were answered while a message of {method} was inflated");
    }
}

#[tokio::test]
async fn a_large_answer_to_a_compressed_message_is_not_compressed() {
    let server = Server::ready(config(&models().join("identity/FP32"))).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for (method, rows, compressed) in
        [("ModelInfer", 1_000, 1), ("ModelInfer", 200_000, 0), ("ModelStreamInfer", 200_000, 0)]
    {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&identity(rows).encode_to_vec()).unwrap();
        let message = packed.finish().unwrap();
        let body = [&[1][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
        let url = format!("{}/inference.GRPCInferenceService/{method}", server.url);
        let call = client.post(url).header("content-type", "application/grpc").header("grpc-encoding", "gzip");
        let answer =
            call.header("grpc-accept-encoding", "gzip").body(body).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(answer[0], compressed, "{method} of {rows} rows");
        assert_eq!(answer.len() > rows * 8, compressed == 0, "{method} of {rows} rows");
    }
}

#[tokio::test]
async fn the_answers_of_a_stream_take_memory_until_they_are_read() {
    let mut settings = config(&models().join("identity/FP32"));
    (settings.bodies_limit_bytes, settings.write_timeout_ms) = (24 << 20, 60_000);
    let server = Server::ready(settings).await;
    let request = identity(2_000_000);
    let connect = async || {
        let channel = Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
        Client::new(channel).max_decoding_message_size(usize::MAX)
    };
    let mut other = connect().await;
    assert!(other.model_infer(request.clone()).await.is_ok());
    let mut held = connect().await;
    let mut unread = held.model_stream_infer(futures::stream::iter([request.clone()])).await.unwrap().into_inner();
    // Its answer is made once the model has answered it.
    let answered = r#"model_predictions_total{model_name="FP32",model_version="1"} 2"#;
    let made = async { while !server.text("/metrics").await.contains(answered) {} };
    tokio::time::timeout(PATIENCE, made).await.expect("the stream's request is answered");
    let filled = async {
        loop {
            if let Err(status) = other.model_infer(request.clone()).await {
                break status;
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, filled).await.expect("the answer counts");
    assert!(status.message().contains("serve.bodies_limit_bytes"), "{status}");
    assert!(unread.message().await.unwrap().is_some());
    drop((unread, held));
    let free = async { while other.model_infer(request.clone()).await.is_err() {} };
    tokio::time::timeout(PATIENCE, free).await.expect("the memory is given back");
}

#[tokio::test]
async fn a_header_that_is_sent_twice_is_not_read_by_half() {
    let server = Server::of("pick").await;
    let body = br#"{"inputs":[{"name":"index","shape":[1],"datatype":"INT64","data":[3]}]}"#;
    let whole = format!("content-length: {}\r\n", body.len());
    let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
    for (headers, body, status) in [
        (
            format!("{whole}inference-header-content-length: 71\r\ninference-header-content-length: 71\r\n"),
            &body[..],
            200,
        ),
        (format!("{whole}inference-header-content-length: 71\r\ninference-header-content-length: 0\r\n"), body, 400),
        (format!("{whole}content-encoding: identity\r\n"), body, 200),
        (format!("{whole}content-encoding: identity\r\ncontent-encoding: gzip\r\n"), body, 415),
        ("transfer-encoding: chunked\r\n".to_owned(), &chunked, 200),
        ("transfer-encoding: gzip, chunked\r\n".to_owned(), &chunked, 501),
    ] {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        let start = "POST /v2/models/pick/infer HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
        stream.write_all(&[start.as_bytes(), headers.as_bytes(), b"\r\n", body].concat()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time");
        read.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {answer}");
    }
}

/// Sends the beginning of a gRPC message of 5 MB, and no more.
async fn begin_message(
    server: &Server,
    method: &str,
    encoding: &str,
    sent: usize,
) -> reqwest::Result<reqwest::Response> {
    let prefix = [u8::from(encoding == "gzip")].into_iter().chain(5_000_000_u32.to_be_bytes());
    let begun: Vec<u8> = prefix.chain(std::iter::repeat_n(b' ', sent)).collect();
    let body = futures::stream::iter([Ok::<_, std::io::Error>(begun)]).chain(futures::stream::pending());
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let call = client.post(format!("{}/inference.GRPCInferenceService/{method}", server.url));
    let call = call.header("content-type", "application/grpc").header("grpc-encoding", encoding);
    call.body(reqwest::Body::wrap_stream(body)).send().await
}

#[tokio::test]
async fn a_grpc_client_that_leaves_in_its_message_is_counted_before_its_model_is_known() {
    let server = Server::of("pick").await;
    let counted = async || {
        let start = r#"model_prediction_errors_total{model_name="",model_version="",error_type="client_left"} "#;
        let metrics = server.text("/metrics").await;
        metrics.lines().find_map(|line| line.strip_prefix(start)).map_or(0, |count| count.parse::<u32>().unwrap())
    };
    for encoding in ["identity", "gzip"] {
        let before = counted().await;
        let leaves = async {
            while counted().await == before {
                let begun = begin_message(&server, "ModelInfer", encoding, 100);
                let _left = tokio::time::timeout(Duration::from_millis(100), begun).await;
            }
        };
        tokio::time::timeout(PATIENCE, leaves).await.unwrap_or_else(|_| panic!("{encoding} is not counted"));
    }
}

#[tokio::test]
async fn every_kind_of_grpc_message_that_drips_gives_way_when_memory_is_short() {
    let gives_way = async |method: &str, encoding: &str| {
        let mut settings = config(&models().join("identity/FP32"));
        (settings.bodies_limit_bytes, settings.body_timeout_ms) = (1_500_000, 60_000);
        let server = Server::ready(settings).await;
        let told = async {
            loop {
                let answer = begin_message(&server, method, encoding, 1_000_000).await.unwrap();
                let head = answer.headers().get("grpc-status").cloned();
                let body = reqwest::Body::from(answer).collect().await;
                // A stream has its status in its trailers.
                let end = body.ok().and_then(|body| body.trailers()?.get("grpc-status").cloned());
                match head.or(end).expect("a status").to_str().unwrap() {
                    // The others had the memory: it begins again.
                    "8" => {}
                    status => break assert_eq!(status, "4", "{method}"),
                }
            }
        };
        let mut others = Client::connect(server.url.clone()).await.unwrap();
        let gives_way = async {
            let mut told = std::pin::pin!(told);
            loop {
                tokio::select! {
                    () = &mut told => break,
                    _pressed = others.model_infer(identity(90_000)) => {}
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, gives_way).await;
        ended.unwrap_or_else(|_| panic!("{method} in {encoding} keeps its memory"));
        let served = async { while others.model_infer(identity(90_000)).await.is_err() {} };
        tokio::time::timeout(PATIENCE, served).await.expect("others get on");
    };
    tokio::join!(
        gives_way("ModelInfer", "identity"),
        gives_way("ModelInfer", "gzip"),
        gives_way("ModelStreamInfer", "identity"),
        gives_way("ModelStreamInfer", "gzip"),
    );
}
