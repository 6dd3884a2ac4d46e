//! The Open Inference Protocol over gRPC, through the gateway's one port.
//!
//! The messages are written down here once more, so that a mistake in the server's own proto file shows.
#![allow(missing_docs, reason = "the names are the protocol's")]

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
};

use modelway_e2e::{Modelway, Role, python, until};
use prost::Message;
use reqwest::Method;
use serde_json::json;
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

/// What callers must see of a rename: the old name answers until the new one does, and then that one does for good.
async fn ask_until_renamed<F: Future<Output = Option<bool>>>(serves: &AtomicBool, id: &str, ask: impl Fn(String) -> F) {
    let mut by_old = 0;
    loop {
        let known = serves.load(Ordering::SeqCst);
        let new = ask("new".to_owned()).await;
        assert!(new == Some(true) || !known, "the new name served before");
        serves.fetch_or(new == Some(true), Ordering::SeqCst);
        match ask("old".to_owned()).await {
            Some(true) => by_old += 1,
            None => {
                assert!(by_old > 0, "there was a time before");
                assert_eq!(ask("new".to_owned()).await, Some(true), "nothing answers");
                return;
            }
            Some(false) => panic!("the old name has no replica"),
        }
        assert_eq!(ask(id.to_owned()).await, Some(true));
    }
}

#[tokio::test]
async fn a_rename_fails_no_call_of_many_callers_by_http_or_grpc() {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__SERVE__PYTHON", python().to_str().unwrap());
    modelway.start(Role::Up).await;
    let folder = modelway.models().doubling("doubling");
    let file = folder.join("model.py");
    let slow = format!("import time\ntime.sleep(2)\n{}", std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, slow).unwrap();
    let id = modelway.deploy("old", &folder, 2).await;
    modelway.until_active(id).await;
    let (modelway, body) =
        (&modelway, json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [2]}]}));
    let body = &body;
    // `None`: nobody has the name. False: it has no replica yet.
    let http = |name: String| async move {
        match modelway.ask(Method::POST, &modelway.infer_url(&name), body.clone()).await.status.as_u16() {
            200 => Some(true),
            503 => Some(false),
            404 => None,
            other => panic!("{other} for {name}"),
        }
    };
    let channel = Channel::from_shared(modelway.gateway("")).unwrap().connect().await.unwrap();
    let channel = &channel;
    let grpc = |name: String| async move {
        let x = Tensor { name: "x".to_owned(), datatype: "FP64".to_owned(), shape: vec![1], contents: None };
        let request = InferRequest {
            model_name: name.clone(),
            id: String::new(),
            inputs: vec![x],
            raw: vec![2_f64.to_le_bytes().to_vec()],
        };
        let named = Named { name: name.clone(), ..Named::default() };
        let ready = call::<_, Truth>(channel, "ModelReady", named).await.unwrap().holds;
        match call::<_, InferResponse>(channel, "ModelInfer", request).await.map_err(|status| status.code()) {
            Ok(_) => Some(true),
            Err(Code::Unavailable) if !ready => Some(false),
            Err(Code::NotFound) => None,
            Err(other) => panic!("{other:?} for {name}, ready: {ready}"),
        }
    };
    until("it predicts", || async { http("old".to_owned()).await == Some(true) }).await;
    let serves = AtomicBool::new(false);
    let md = format!("md-{id}");
    let renaming = async {
        let deployment = modelway.control(&format!("/v1/modelDeployment/{id}"));
        let renamed = modelway.ask(Method::PATCH, &deployment, json!({"name": "new"})).await;
        assert_eq!(renamed.status, 200, "{renamed:#?}");
    };
    let over_http = futures::future::join_all((0..4).map(|_| ask_until_renamed(&serves, &md, &http)));
    let over_grpc = futures::future::join_all((0..4).map(|_| ask_until_renamed(&serves, &md, &grpc)));
    tokio::join!(renaming, over_http, over_grpc);
}
