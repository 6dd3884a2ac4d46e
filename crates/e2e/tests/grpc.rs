//! The Open Inference Protocol over gRPC, through the gateway's one port.
//!
//! The messages are written down here once more, so that a mistake in the server's own proto file shows.
#![allow(missing_docs, reason = "the names are the protocol's")]

use modelway_e2e::{Modelway, until};
use prost::Message;
use tonic::{Code, Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Truth {
    #[prost(bool, tag = "1")]
    holds: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Contents {
    #[prost(float, repeated, tag = "6")]
    fp32: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    contents: Option<Contents>,
}

#[derive(Clone, PartialEq, Message)]
struct InferRequest {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    raw: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct InferResponse {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    raw: Vec<Vec<u8>>,
}

async fn call<Q, A>(channel: &Channel, method: &str, request: Q) -> Result<A, tonic::Status>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| tonic::Status::from_error(Box::new(error)))?;
    let path = PathAndQuery::try_from(format!("/inference.GRPCInferenceService/{method}")).expect("a method is a path");
    let codec = ProstCodec::<Q, A>::default();
    grpc.unary(Request::new(request), path, codec).await.map(tonic::Response::into_inner)
}

fn flower(model: &str, raw: bool) -> InferRequest {
    let values = [6.7_f32, 3.0, 5.2, 2.3];
    InferRequest {
        model_name: model.to_owned(),
        id: "seven".to_owned(),
        inputs: vec![Tensor {
            name: "input".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 4],
            contents: (!raw).then(|| Contents { fp32: values.to_vec() }),
        }],
        raw: if raw { vec![values.iter().flat_map(|v| v.to_le_bytes()).collect()] } else { Vec::new() },
    }
}

#[tokio::test]
async fn grpc_reaches_a_model_by_id_and_by_name_with_typed_and_with_raw_tensors() {
    let modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 2).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let channel = Channel::from_shared(modelway.gateway("")).unwrap().connect().await.unwrap();

    for method in ["ServerLive", "ServerReady"] {
        let answer: Truth = call(&channel, method, Empty {}).await.unwrap();
        assert!(answer.holds, "{method}");
    }
    let named = Named { name: "iris".to_owned(), ..Named::default() };
    assert!(call::<_, Truth>(&channel, "ModelReady", named.clone()).await.unwrap().holds);
    assert_eq!(call::<_, Named>(&channel, "ModelMetadata", named).await.unwrap().name, "iris");

    for model in ["iris".to_owned(), format!("md-{id}")] {
        for raw in [false, true] {
            let answer: InferResponse = call(&channel, "ModelInfer", flower(&model, raw)).await.unwrap();
            assert_eq!((answer.model_name.as_str(), answer.id.as_str()), (model.as_str(), "seven"));
            assert_eq!(answer.outputs.len(), 2);
            if raw {
                assert_eq!(answer.raw[0], 2_i64.to_le_bytes(), "a virginica");
            }
        }
    }

    let unknown = call::<_, InferResponse>(&channel, "ModelInfer", flower("irsi", false)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown:?}");
    assert!(unknown.message().contains("iris"), "{unknown:?}");
    let mut wrong = flower("iris", false);
    wrong.inputs[0].shape = vec![1, 3];
    let wrong = call::<_, InferResponse>(&channel, "ModelInfer", wrong).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong:?}");

    modelway.succeed(&["scale", "iris", "0"]);
    until("it is idle", || async {
        let answer = call::<_, InferResponse>(&channel, "ModelInfer", flower("iris", false)).await;
        answer.is_err_and(|status| status.code() == Code::Unavailable)
    })
    .await;
}
