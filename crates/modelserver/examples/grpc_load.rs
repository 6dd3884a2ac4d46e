//! Load over gRPC: `grpc_load URL MODEL BODY CONNECTIONS SECONDS` sends the V2 request in the JSON file BODY, its
//! tensors raw, from so many callers that each wait for their answer, and prints one line of JSON: answers, rate,
//! latencies in milliseconds, errors.
//!
//! It runs on one thread, so that it can be pinned to one core.

use std::time::{Duration, Instant};

use inference::{Data, Request};
use modelway_modelserver::proto::{ModelInferRequest, ModelInferResponse, model_infer_request::InferInputTensor};
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

/// As many connections as clients of gRPC open; more callers share them.
const CONNECTIONS: usize = 8;

fn message(model: &str, file: &str) -> ModelInferRequest {
    let body = std::fs::read(file).expect("the body can be read");
    let request = Request::decode(&body.into(), None).expect("the body is a V2 request");
    let raw = |data: &Data| -> Vec<u8> {
        if let Data::Fp32(data) = data {
            data.iter().flat_map(|n| n.to_le_bytes()).collect()
        } else if let Data::Int64(data) = data {
            data.iter().flat_map(|n| n.to_le_bytes()).collect()
        } else {
            panic!("{} is not sent by this tool", data.datatype())
        }
    };
    let input = |tensor: &inference::Tensor| InferInputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype().to_string(),
        shape: tensor.shape.clone(),
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: request.inputs.iter().map(input).collect(),
        raw_input_contents: request.inputs.iter().map(|tensor| raw(&tensor.data).into()).collect(),
        ..ModelInferRequest::default()
    }
}

async fn call(grpc: &mut Grpc<Channel>, message: ModelInferRequest) -> Result<(), tonic::Status> {
    grpc.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
    grpc.unary(tonic::Request::new(message), path, codec).await.map(drop)
}

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout, reason = "the figures are what it is for")]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [url, model, body, callers, seconds] = arguments.as_slice() else {
        panic!("usage: grpc_load URL MODEL BODY CONNECTIONS SECONDS");
    };
    let message = message(model, body);
    let callers: usize = callers.parse().expect("CONNECTIONS is a number");
    let end = Instant::now() + Duration::from_secs_f64(seconds.parse().expect("SECONDS is a number"));
    let mut channels = Vec::new();
    for _ in 0..callers.min(CONNECTIONS) {
        let endpoint = Channel::from_shared(url.clone()).expect("URL is one");
        channels.push(endpoint.connect().await.expect("the server listens"));
    }
    let began = Instant::now();
    let work = (0..callers).map(|caller| {
        let mut grpc = Grpc::new(channels[caller % channels.len()].clone());
        let message = message.clone();
        async move {
            let (mut took, mut errors) = (Vec::new(), 0u64);
            while Instant::now() < end {
                let sent = Instant::now();
                match call(&mut grpc, message.clone()).await {
                    Ok(()) => took.push(sent.elapsed()),
                    Err(_) => errors += 1,
                }
            }
            (took, errors)
        }
    });
    let done = futures::future::join_all(work).await;
    let elapsed = began.elapsed().as_secs_f64();
    let errors: u64 = done.iter().map(|(_, errors)| errors).sum();
    let mut took: Vec<_> = done.into_iter().flat_map(|(took, _)| took).collect();
    took.sort();
    let at = |part: usize| took.get(took.len() * part / 1_000).map_or(0.0, |took| took.as_secs_f64() * 1e3);
    let (p50, p99, n) = (at(500), at(990), took.len());
    let rate = u32::try_from(n).map_or(0.0, f64::from) / elapsed;
    println!(r#"JSON {{"n":{n},"rps":{rate:.1},"p50":{p50:.3},"p99":{p99:.3},"errors":{errors}}}"#);
}
