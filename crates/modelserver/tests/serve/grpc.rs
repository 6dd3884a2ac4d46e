use std::collections::HashMap;

use bytes::Bytes;
use modelserver::proto::{
    InferTensorContents, ModelInferRequest, ModelMetadataRequest, ModelReadyRequest, ServerLiveRequest,
    ServerMetadataRequest, ServerReadyRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient as Client,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use tonic::{Code, transport::Channel};

use crate::support::Server;

async fn client(server: &Server) -> Client<Channel> {
    Client::connect(server.url.clone()).await.unwrap()
}

fn input(name: &str, datatype: &str, contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: vec![1, 2],
        parameters: HashMap::new(),
        contents,
    }
}

fn request(model: &str, inputs: Vec<InferInputTensor>) -> ModelInferRequest {
    ModelInferRequest { model_name: model.into(), id: "g1".into(), inputs, ..Default::default() }
}

#[tokio::test]
async fn grpc_answers_on_the_same_port_with_typed_and_with_raw_contents() {
    let server = Server::of("identity/INT8").await;
    let mut client = client(&server).await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let about = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(about.name, "modelway");
    let asked = ModelMetadataRequest { name: "INT8".into(), version: String::new() };
    let metadata = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!((metadata.inputs[0].datatype.as_str(), metadata.inputs[0].shape.as_slice()), ("INT8", &[-1, 2][..]));
    let asked = ModelReadyRequest { name: "INT8".into(), version: "1".into() };
    assert!(client.model_ready(asked).await.unwrap().into_inner().ready);

    let contents = InferTensorContents { int_contents: vec![-128, 127], ..Default::default() };
    let typed = client.model_infer(request("INT8", vec![input("x", "INT8", Some(contents.clone()))])).await.unwrap();
    let typed = typed.into_inner();
    assert_eq!((typed.id.as_str(), typed.model_version.as_str()), ("g1", "1"));
    assert_eq!(typed.outputs[0].contents, Some(contents));
    assert!(typed.raw_output_contents.is_empty());

    let mut raw = request("INT8", vec![input("x", "INT8", None)]);
    raw.raw_input_contents = vec![Bytes::from_static(&[0x80, 0x7f])];
    let raw = client.model_infer(raw).await.unwrap().into_inner();
    assert_eq!(raw.raw_output_contents, [Bytes::from_static(&[0x80, 0x7f])]);
    assert_eq!((raw.outputs[0].shape.as_slice(), &raw.outputs[0].contents), (&[1, 2][..], &None));
}

#[tokio::test]
async fn halves_and_strings_travel_raw() {
    let server = Server::of("identity/FP16").await;
    let mut halves = request("FP16", vec![input("x", "FP16", None)]);
    halves.raw_input_contents = vec![Bytes::from_static(&[0, 0x3c, 0, 0xc0])];
    let answer = client(&server).await.model_infer(halves).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, [Bytes::from_static(&[0, 0x3c, 0, 0xc0])]);

    let server = Server::of("identity/BYTES").await;
    let contents = InferTensorContents {
        bytes_contents: vec![Bytes::from_static(b"one"), Bytes::from_static(b"")],
        ..Default::default()
    };
    let strings = request("BYTES", vec![input("x", "BYTES", Some(contents.clone()))]);
    let answer = client(&server).await.model_infer(strings).await.unwrap().into_inner();
    assert_eq!(answer.outputs[0].contents, Some(contents));
}

#[tokio::test]
async fn grpc_refuses_with_the_right_code_and_words() {
    let server = Server::of("identity/INT8").await;
    let mut client = client(&server).await;
    let mut check = async |request: ModelInferRequest, code: Code, words: &str| {
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{status}");
    };
    check(request("INT9", vec![]), Code::NotFound, "did you mean `INT8`?").await;
    check(request("INT8", vec![]), Code::InvalidArgument, "input `x` is missing").await;
    let contents = InferTensorContents { int_contents: vec![1, 128], ..Default::default() };
    let wide = request("INT8", vec![input("x", "INT8", Some(contents))]);
    check(wide, Code::InvalidArgument, "element 1 is 128, which INT8 cannot hold").await;
    let mut short = request("INT8", vec![input("x", "INT8", None)]);
    short.raw_input_contents = vec![Bytes::from_static(&[1])];
    check(short, Code::InvalidArgument, "take 2 bytes, 1 were sent").await;
    let mut uneven = request("INT8", vec![input("x", "INT8", None)]);
    uneven.raw_input_contents = vec![Bytes::new(), Bytes::new()];
    check(uneven, Code::InvalidArgument, "send one for each input, or none").await;
    let none = InferTensorContents::default();
    let empty = request("INT8", vec![input("x", "INT8", Some(none))]);
    check(empty, Code::InvalidArgument, "has 2 elements, the data 0").await;
    let contents = InferTensorContents { int_contents: vec![1, 2], ..Default::default() };
    let mut output = request("INT8", vec![input("x", "INT8", Some(contents))]);
    output.outputs = vec![InferRequestedOutputTensor { name: "z".into(), parameters: HashMap::new() }];
    check(output, Code::InvalidArgument, "no output `z`").await;
}
