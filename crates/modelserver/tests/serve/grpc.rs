use std::collections::HashMap;

use bytes::Bytes;
use modelserver::{
    health_proto::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient},
    proto::{
        DataType, InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
        ModelReadyRequest, RepositoryIndexRequest, ServerLiveRequest, ServerMetadataRequest, ServerReadyRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient as Client,
        infer_parameter::ParameterChoice,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    },
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, codec::CompressionEncoding, transport::Channel};

use crate::support::{Server, config, models};

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
async fn elements_in_another_field_than_their_types_are_refused() {
    let server = Server::of("identity/INT8").await;
    let mut client = client(&server).await;
    let both = InferTensorContents { int_contents: vec![1, 2], fp32_contents: vec![0.5], ..Default::default() };
    let other = InferTensorContents { int64_contents: vec![1, 2], ..Default::default() };
    for (contents, field) in [(both, "fp32_contents"), (other, "int64_contents")] {
        let asked = request("INT8", vec![input("x", "INT8", Some(contents))]);
        let status = client.model_infer(asked).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let words = format!("input `x`: {field} has elements, and those of INT8 belong in int_contents");
        assert!(status.message().starts_with(&words), "{status}");
    }
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

fn sum(id: &str, a: &[f32], b: &[f32]) -> ModelInferRequest {
    let input = |name: &str, data: &[f32]| InferInputTensor {
        shape: vec![i64::try_from(data.len()).unwrap()],
        contents: Some(InferTensorContents { fp32_contents: data.into(), ..Default::default() }),
        ..input(name, "FP32", None)
    };
    let inputs = vec![input("a", a), input("b", b)];
    ModelInferRequest { id: id.into(), ..request("add", inputs) }
}

fn is_final(answer: &ModelInferResponse) -> bool {
    let parameter = answer.parameters.get("triton_final_response").and_then(|p| p.parameter_choice.as_ref());
    parameter == Some(&ParameterChoice::BoolParam(true))
}

#[tokio::test]
async fn a_stream_answers_every_request_in_order_and_tells_of_errors_without_ending() {
    let server = Server::of("add").await;
    let mut client = client(&server).await;
    let (requests, receive) = mpsc::channel(8);
    let mut answers = client.model_stream_infer(ReceiverStream::new(receive)).await.unwrap().into_inner();
    // The first is answered while the stream is still open for others.
    requests.send(sum("1", &[1.0], &[2.0])).await.unwrap();
    let first = answers.message().await.unwrap().unwrap();
    let answer = first.infer_response.unwrap();
    assert_eq!((first.error_message.as_str(), answer.id.as_str(), is_final(&answer)), ("", "1", true));
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().fp32_contents, [3.0]);

    let mut half = sum("2", &[1.0], &[2.0]);
    half.inputs.truncate(1);
    requests.send(half).await.unwrap();
    requests.send(ModelInferRequest { model_name: "ad".into(), ..sum("3", &[1.0], &[2.0]) }).await.unwrap();
    for number in 4..=8_i16 {
        requests.send(sum(&number.to_string(), &[f32::from(number)], &[0.5])).await.unwrap();
    }
    drop(requests);
    let mut rest = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        rest.push((answer.infer_response.unwrap_or_default(), answer.error_message));
    }
    let ids: Vec<_> = rest.iter().map(|(answer, _)| answer.id.as_str()).collect();
    assert_eq!(ids, ["2", "3", "4", "5", "6", "7", "8"]);
    assert!(rest[0].1.contains("input `b` is missing"), "{}", rest[0].1);
    assert!(rest[1].1.contains("did you mean `add`?"), "{}", rest[1].1);
    assert!(rest[0].0.outputs.is_empty() && is_final(&rest[0].0));
    assert_eq!(rest[6].0.outputs[0].contents.as_ref().unwrap().fp32_contents, [8.5]);
}

#[tokio::test]
async fn a_client_may_send_a_thousand_requests_before_it_reads_an_answer() {
    let server = Server::of("add").await;
    let requests = futures::stream::iter((0..1_000_i16).map(|n| sum(&n.to_string(), &[f32::from(n)], &[1.0])));
    let mut answers = client(&server).await.model_stream_infer(requests).await.unwrap().into_inner();
    for number in 0..1_000_i16 {
        let answer = answers.message().await.unwrap().unwrap();
        let contents = answer.infer_response.unwrap().outputs[0].contents.clone().unwrap();
        assert_eq!((answer.error_message.as_str(), contents.fp32_contents), ("", vec![f32::from(number) + 1.0]));
    }
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn an_open_stream_ends_with_the_server_and_does_not_hold_it_up() {
    let mut server = Server::of("add").await;
    let (requests, receive) = mpsc::channel(1);
    let mut client = client(&server).await;
    let mut answers = client.model_stream_infer(ReceiverStream::new(receive)).await.unwrap().into_inner();
    requests.send(sum("1", &[1.0], &[2.0])).await.unwrap();
    answers.message().await.unwrap().unwrap();
    server.tasks.stop();
    server.end().await.unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("ending")), (Code::Unavailable, true), "{status}");
}

#[tokio::test]
async fn messages_may_be_compressed_and_answers_are_as_the_request_was() {
    let mut config = config(&models().join("identity/FP32"));
    config.body_limit_bytes = 1 << 20;
    let server = Server::ready(config).await;
    let rows = 100_000;
    let sent = |rows: usize| {
        let mut request = request("FP32", vec![input("x", "FP32", None)]);
        request.inputs[0].shape[0] = i64::try_from(rows).unwrap();
        request.raw_input_contents = vec![Bytes::from(vec![0; rows * 8])];
        request
    };
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = client(&server).await.send_compressed(encoding).accept_compressed(encoding);
        let answer = client.model_infer(sent(rows)).await.unwrap();
        let name = if encoding == CompressionEncoding::Gzip { "gzip" } else { "deflate" };
        assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), name);
        assert_eq!(answer.into_inner().raw_output_contents[0].len(), rows * 8);
        // A kilobyte of zeros on the wire; the bound is for what it becomes.
        let status = client.model_infer(sent(2 * rows)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    // One that could read compressed answers, but sends plain requests, gets plain answers.
    let mut client = client(&server).await.accept_compressed(CompressionEncoding::Gzip);
    let answer = client.model_infer(sent(1)).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding"), None);
}

#[tokio::test]
async fn reflection_lists_the_services_and_gives_their_definitions_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let server = Server::of("add").await;
    let channel = Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    let services = |names: Vec<String>| {
        for name in ["inference.GRPCInferenceService", "grpc.health.v1.Health"] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
    };

    let ask = |ask| v1::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let asked = [
        ask(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ask(v1::server_reflection_request::MessageRequest::FileContainingSymbol("inference.ModelConfig".into())),
    ];
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(futures::stream::iter(asked)).await.unwrap().into_inner();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    services(list.service.into_iter().map(|service| service.name).collect());
    let Some(v1::server_reflection_response::MessageResponse::FileDescriptorResponse(file)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no file");
    };
    assert!(file.file_descriptor_proto[0].windows(14).any(|bytes| bytes == b"max_batch_size"));

    let asked = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(futures::stream::iter([asked])).await.unwrap().into_inner();
    let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    services(list.service.into_iter().map(|service| service.name).collect());
}

#[tokio::test]
async fn grpc_health_tells_of_the_server_and_of_each_model_and_again_when_it_changes() {
    let mut server = Server::of("add").await;
    let mut client = HealthClient::connect(server.url.clone()).await.unwrap();
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "add", "inference.GRPCInferenceService"] {
        let status = client.check(ask(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let status = client.check(ask("nobody")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let mut unknown = client.watch(ask("nobody")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let mut watched = client.watch(ask("add")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.tasks.stop();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    server.end().await.unwrap();
}

#[tokio::test]
async fn configuration_and_index_are_told_in_tritons_words() {
    let server = Server::of("many").await;
    let mut client = client(&server).await;
    let asked = ModelConfigRequest { name: "adder".into(), version: String::new() };
    let config = client.model_config(asked).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.name.as_str(), config.platform.as_str()), ("adder", "onnxruntime_onnx"));
    assert_eq!(config.backend, "onnxruntime");
    assert_eq!((config.input[0].name.as_str(), config.input[0].data_type()), ("a", DataType::TypeFp32));
    assert_eq!(config.instance_group[0].count, 1);
    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    let mut index: Vec<_> =
        index.models.iter().map(|m| (m.name.as_str(), m.version.as_str(), m.state.as_str())).collect();
    index.sort_unstable();
    assert_eq!(index, [("adder", "1", "READY"), ("picker", "3", "READY")]);
    let asked = ModelReadyRequest { name: "nobody".into(), version: String::new() };
    assert!(!client.model_ready(asked).await.unwrap().into_inner().ready);
}

#[tokio::test]
async fn methods_that_are_not_served_say_so_in_words() {
    let server = Server::of("add").await;
    let channel = Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    for (method, words) in [
        ("inference.GRPCInferenceService/SystemSharedMemoryRegister", "send the tensors in the message"),
        ("inference.GRPCInferenceService/CudaSharedMemoryStatus", "send the tensors in the message"),
        ("inference.GRPCInferenceService/TraceSetting", "configuration"),
        ("inference.GRPCInferenceService/Nothing", "no such method"),
        ("inference.Other/Nothing", "the service inference.Other is not supported"),
    ] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<ServerLiveRequest, ServerLiveRequest>::default();
        let path = format!("/{method}").parse().unwrap();
        let status = client.unary(tonic::Request::new(ServerLiveRequest {}), path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status}");
        assert!(status.message().contains(words), "{method}: {status}");
    }
}

#[tokio::test]
async fn a_prediction_may_come_in_pieces_and_is_refused_when_it_is_not_one_whole_message() {
    let mut config = config(&models().join("identity/FP32"));
    config.body_limit_bytes = 1 << 20;
    let server = Server::ready(config).await;
    let rows = 40_000_usize;
    let mut large = request("FP32", vec![input("x", "FP32", None)]);
    large.inputs[0].shape[0] = i64::try_from(rows).unwrap();
    large.raw_input_contents = vec![(0..rows * 8).map(|n| u8::try_from(n % 100).unwrap()).collect()];
    let answer = client(&server).await.model_infer(large.clone()).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, large.raw_input_contents);
    large.inputs[0].shape[0] *= 4;
    large.raw_input_contents = vec![Bytes::from(vec![0; 4 * rows * 8])];
    let status = client(&server).await.model_infer(large).await.unwrap_err();
    assert!(status.message().contains("serve.body_limit_bytes"), "{status}");

    let small = request("FP32", vec![input("x", "FP32", None)]).encode_to_vec();
    let prefixed = |flag: u8, length: usize| {
        let mut framed = vec![flag];
        framed.extend(u32::try_from(length).unwrap().to_be_bytes());
        [framed, small.clone()].concat()
    };
    let http = base::client::builder().http2_prior_knowledge().build().unwrap();
    for (body, words) in [
        (vec![], "in the middle of its message"),
        (prefixed(0, small.len())[..3].to_vec(), "in the middle of its message"),
        (prefixed(0, small.len() + 1), "in the middle of its message"),
        (prefixed(0, small.len() - 1), "more than one message"),
        (prefixed(1, small.len()), "compressed"),
        ([&[0, 0, 0, 0, 2][..], b"\xff\xff"].concat(), "no ModelInferRequest"),
        (prefixed(0, small.len()), "has 2 elements"),
    ] {
        let url = format!("{}/inference.GRPCInferenceService/ModelInfer", server.url);
        let answer = http.post(url).header("content-type", "application/grpc").body(body).send().await.unwrap();
        let said = answer.headers().get("grpc-message").map(|said| said.to_str().unwrap().replace("%20", " "));
        assert!(said.as_ref().is_some_and(|said| said.contains(words)), "{words}: {said:?}");
    }
}
