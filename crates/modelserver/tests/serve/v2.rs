use bytes::Bytes;
use half::{bf16, f16};
use inference::{Data, Datatype, HEADER_LENGTH, Request, Response, Tensor};
use serde_json::{Value, json};

use crate::support::{Server, client, config, models, refused};

/// A tensor [2, 2] with telling elements of a type.
fn telling(datatype: Datatype) -> Tensor {
    let data = match datatype {
        Datatype::Bool => Data::Bool(vec![true, false, false, true]),
        Datatype::Uint8 => Data::Uint8(vec![0, 1, 127, u8::MAX]),
        Datatype::Uint16 => Data::Uint16(vec![0, 1, 300, u16::MAX]),
        Datatype::Uint32 => Data::Uint32(vec![0, 1, 70_000, u32::MAX]),
        Datatype::Uint64 => Data::Uint64(vec![0, 1, 1 << 60, u64::MAX]),
        Datatype::Int8 => Data::Int8(vec![0, -1, i8::MIN, i8::MAX]),
        Datatype::Int16 => Data::Int16(vec![0, -1, i16::MIN, i16::MAX]),
        Datatype::Int32 => Data::Int32(vec![0, -1, i32::MIN, i32::MAX]),
        Datatype::Int64 => Data::Int64(vec![0, -1, i64::MIN, i64::MAX]),
        Datatype::Fp16 => Data::Fp16([0.0, -1.5, 65504.0, 1e-4].map(f16::from_f64).to_vec()),
        Datatype::Bf16 => Data::Bf16([0.0, -1.5, 1e38, 1e-4].map(bf16::from_f64).to_vec()),
        Datatype::Fp32 => Data::Fp32(vec![0.1, -1.5, f32::MAX, f32::MIN_POSITIVE]),
        Datatype::Fp64 => Data::Fp64(vec![0.1, -1.5, f64::MAX, f64::MIN_POSITIVE]),
        Datatype::Bytes => Data::Bytes(["", "two words", "é", "日本"].map(Bytes::from).to_vec()),
    };
    Tensor { name: "x".into(), shape: vec![2, 2], data }
}

async fn infer(server: &Server, model: &str, request: &Request, binary: bool) -> Response {
    let encoded = request.encode(binary).unwrap();
    let mut post = client().post(format!("{}/v2/models/{model}/infer", server.url)).body(encoded.body);
    if let Some(length) = encoded.header_length {
        post = post.header(HEADER_LENGTH, length);
    }
    let response = post.send().await.unwrap();
    let length = response.headers().get(HEADER_LENGTH).map(|length| length.to_str().unwrap().parse().unwrap());
    let (status, body) = (response.status(), response.bytes().await.unwrap());
    assert!(status.is_success(), "{status} {}", String::from_utf8_lossy(&body));
    Response::decode(&body, length).unwrap()
}

#[tokio::test]
async fn every_datatype_goes_through_a_model_unchanged_in_json_and_in_binary() {
    for datatype in Datatype::ALL {
        let server = Server::of(&format!("identity/{datatype}")).await;
        let model = datatype.to_string();
        let (_, metadata) = server.get(&format!("/v2/models/{model}")).await;
        assert_eq!(metadata["inputs"], json!([{"name": "x", "datatype": model, "shape": [-1, 2]}]));
        for binary in [false, true] {
            let mut request = Request { id: Some("a7".into()), inputs: vec![telling(datatype)], ..Request::default() };
            if binary {
                request.parameters.insert("binary_data_output".into(), inference::Parameter::Bool(true));
            }
            let response = infer(&server, &model, &request, binary).await;
            assert_eq!(response.outputs, [Tensor { name: "y".into(), ..telling(datatype) }], "binary: {binary}");
            assert_eq!(response.id.as_deref(), Some("a7"));
            assert_eq!(response.model_name, model);
            assert_eq!(response.model_version.as_deref(), Some("1"));
        }
    }
}

#[tokio::test]
async fn predictions_are_those_of_pythons_onnxruntime() {
    let server = Server::of("iris").await;
    let expected: Value = serde_json::from_slice(&std::fs::read(models().join("iris/expected.json")).unwrap()).unwrap();
    let rows = &expected["rows"];
    let body = json!({"inputs": [{"name": "X", "shape": [rows, 4], "datatype": "FP32", "data": expected["input"]}]});
    let (status, answer) = server.post("/v2/models/iris/infer", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["outputs"][0]["data"], expected["label"]);
    let ours = answer["outputs"][1]["data"].as_array().unwrap();
    let theirs = expected["probabilities"].as_array().unwrap();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours.as_f64().unwrap() - theirs.as_f64().unwrap()).abs() < 1e-6, "{ours} {theirs}");
    }
}

#[tokio::test]
async fn a_raw_body_is_the_one_input_and_is_answered_in_binary() {
    let server = Server::of("identity/FP32").await;
    let body: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|n| n.to_le_bytes()).collect();
    let post = client().post(format!("{}/v2/models/FP32/infer", server.url)).body(body.clone());
    let response = post.header(HEADER_LENGTH, 0).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let length: usize = response.headers()[HEADER_LENGTH].to_str().unwrap().parse().unwrap();
    let answer = response.bytes().await.unwrap();
    assert_eq!(answer[length..], body);
    let head: Value = serde_json::from_slice(&answer[..length]).unwrap();
    assert_eq!(head["outputs"][0]["shape"], json!([2, 2]));
}

#[tokio::test]
async fn an_output_can_be_asked_for_by_name_and_form() {
    let server = Server::of("add").await;
    let input = |name: &str| json!({"name": name, "shape": [2], "datatype": "FP32", "data": [1, 2]});
    let inputs = json!([input("b"), input("a")]);
    let (_, answer) = server.post("/v2/models/add/infer", &json!({"inputs": inputs})).await;
    assert_eq!(answer["outputs"][0], json!({"name": "sum", "datatype": "FP32", "shape": [2], "data": [2.0, 4.0]}));
    assert_eq!(answer["outputs"][1]["data"], json!([1.0, 4.0]));
    let body = json!({"inputs": inputs, "outputs": [{"name": "product"}]});
    let (_, answer) = server.post("/v2/models/add/infer", &body).await;
    assert_eq!(answer["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(answer["outputs"][0]["name"], "product");
    let body = json!({"inputs": inputs, "outputs": [{"name": "sun"}]});
    let said = refused(server.post("/v2/models/add/infer", &body).await, 400);
    assert_eq!(said, "the model has no output `sun`; did you mean `sum`?");
}

#[tokio::test]
async fn scores_of_a_classifier_with_zipmap_are_one_tensor_with_labelled_columns() {
    for (model, labels) in
        [("zipmap", json!(["0", "1", "2"])), ("zipmap_names", json!(["setosa", "versicolor", "virginica"]))]
    {
        let server = Server::of(model).await;
        let (_, metadata) = server.get(&format!("/v2/models/{model}")).await;
        let described = json!({"name": "output_probability", "datatype": "FP32", "shape": [-1, 3], "labels": labels});
        assert_eq!(metadata["outputs"][1], described);
        let body = json!({"inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2, 6.7, 3.0, 5.2, 2.3]}]});
        let (status, answer) = server.post(&format!("/v2/models/{model}/infer"), &body).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["outputs"][1]["shape"], json!([2, 3]));
        let scores = answer["outputs"][1]["data"].as_array().unwrap();
        assert!(scores[0].as_f64().unwrap() > 0.9 && scores[5].as_f64().unwrap() > 0.9, "{answer}");
    }
}

#[tokio::test]
async fn the_newest_version_answers_unless_another_is_named() {
    let server = Server::of("versions").await;
    let input = |name: &str| json!({"name": name, "shape": [1], "datatype": "FP32", "data": [0]});
    let body = json!({"inputs": [input("a"), input("b")]});
    let (_, newest) = server.post("/v2/models/versions/infer", &body).await;
    assert_eq!((&newest["model_version"], &newest["outputs"][0]["data"]), (&json!("10"), &json!([10.0])));
    let (_, named) = server.post("/v2/models/versions/versions/9/infer", &body).await;
    assert_eq!((&named["model_version"], &named["outputs"][0]["data"]), (&json!("9"), &json!([9.0])));
    let (_, metadata) = server.get("/v2/models/versions").await;
    assert_eq!(metadata["versions"], json!(["9", "10"]));
    let said = refused(server.get("/v2/models/versions/versions/11").await, 404);
    assert_eq!(said, "model `versions` has no version `11`; it has 9, 10");
    assert_eq!(server.get("/v2/models/versions/versions/9/ready").await.0, 200);
}

#[tokio::test]
async fn a_folder_of_many_serves_each_by_its_name() {
    let server = Server::of("many").await;
    let body = json!({"inputs": [{"name": "index", "shape": [2], "datatype": "INT64", "data": [3, 9]}]});
    let (_, answer) = server.post("/v2/models/picker/infer", &body).await;
    assert_eq!((&answer["model_version"], &answer["outputs"][0]["data"]), (&json!("3"), &json!([3.0, 9.0])));
    assert_eq!(server.get("/v2/models/adder").await.0, 200);
    assert_eq!(server.get("/v1/models").await.1, json!({"models": ["adder", "picker"]}));
    let said = refused(server.get("/v2/models/pickr/ready").await, 404);
    assert_eq!(said, "Request for unknown model `pickr`: did you mean `picker`?");
}

#[tokio::test]
async fn a_model_answers_with_the_name_that_it_was_asked_by() {
    let mut config = config(&models().join("pick"));
    config.model_name = Some("md-7".into());
    config.alias = vec!["numbers".into()];
    config.model_version = Some("v3".into());
    let server = Server::ready(config).await;
    let body = json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [1]}]});
    for name in ["md-7", "numbers"] {
        let (_, answer) = server.post(&format!("/v2/models/{name}/infer"), &body).await;
        assert_eq!((&answer["model_name"], &answer["model_version"]), (&json!(name), &json!("v3")));
        assert_eq!(server.get(&format!("/v2/models/{name}/health/live")).await.0, 200);
        assert_eq!(server.post(&format!("/v2/models/{name}/health/live"), &json!({})).await.0, 200);
    }
    assert!(
        server.text("/metrics").await.contains(r#"model_predictions_total{model_name="md-7",model_version="v3"} 2"#)
    );
}

#[tokio::test]
async fn a_wrong_request_is_refused_in_plain_words_and_counted() {
    let server = Server::of("pick").await;
    let infer = |input: Value| {
        let server = &server;
        async move { server.post("/v2/models/pick/infer", &json!({"inputs": [input]})).await }
    };
    let said = refused(infer(json!({"name": "index", "shape": [1], "datatype": "FP32", "data": [1]})).await, 400);
    assert_eq!(said, "input `index` is FP32, the model wants INT64");
    let said =
        refused(infer(json!({"name": "index", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]})).await, 400);
    assert_eq!(said, "input `index` has the shape [1, 2], the model wants [-1] (-1 is any size)");
    let said = refused(infer(json!({"name": "indes", "shape": [1], "datatype": "INT64", "data": [1]})).await, 400);
    assert_eq!(said, "the model has no input `indes`; did you mean `index`?");
    let said = refused(infer(json!({"name": "index", "shape": [1], "datatype": "INT64", "data": [99]})).await, 400);
    assert!(said.contains("the model refuses these inputs") && said.contains("99"), "{said}");
    let said = refused(server.post_bytes("/v2/models/pick/infer", "{\"inputs\":[").await, 400);
    assert!(said.contains("not JSON"), "{said}");
    refused(server.post("/v2/models/pick/infr", &json!({})).await, 404);
    refused(server.get("/v2/models/pick/infer").await, 405);
    let sequence = json!({"inputs": [], "parameters": {"sequence_id": 1}});
    refused(server.post("/v2/models/pick/infer", &sequence).await, 501);
    let metrics = server.text("/metrics").await;
    let labels = r#"model_name="pick",model_version="1""#;
    let errors = |kind: &str| format!(r#"model_prediction_errors_total{{{labels},error_type="{kind}"}}"#);
    assert!(metrics.contains(&format!("{} 6\n", errors("invalid_input"))), "{metrics}");
    assert!(metrics.contains(&format!("{} 0\n", errors("timeout"))), "{metrics}");
    assert!(metrics.contains(&format!("model_predictions_total{{{labels}}} 0\n")), "{metrics}");
    assert!(metrics.contains(&format!("model_loaded{{{labels}}} 1\n")), "{metrics}");
    assert!(metrics.contains("process_resident_memory_bytes "), "{metrics}");
}

#[tokio::test]
async fn what_codecs_and_dumped_models_write_is_understood() {
    let server = Server::of("pick").await;
    // MLServer's codecs write a list as a column, and a dumped request has all of its fields.
    let input = json!({"name": "index", "shape": [2, 1], "datatype": "INT64", "parameters": null, "data": [1, 0]});
    let body = json!({"id": null, "parameters": null, "inputs": [input], "outputs": null});
    let (status, answer) = server.post("/v2/models/pick/infer", &body).await;
    assert_eq!((status, &answer["outputs"][0]["shape"]), (200, &json!([2])), "{answer}");
}

#[tokio::test]
async fn what_triton_can_and_this_server_cannot_is_refused_by_name() {
    let server = Server::of("pick").await;
    let input = json!({"name": "index", "shape": [1], "datatype": "INT64", "data": [1]});
    let output = json!({"name": "picked", "parameters": {"classification": 2}});
    let body = json!({"inputs": [input], "outputs": [output]});
    let said = refused(server.post("/v2/models/pick/infer", &body).await, 400);
    assert!(said.contains("there is no `classification` here"), "{said}");
    let input = json!({"name": "index", "shape": [1], "datatype": "INT64", "data": [1]});
    let body = json!({"inputs": [input], "parameters": {"timeout": "soon"}});
    let said = refused(server.post("/v2/models/pick/infer", &body).await, 400);
    assert_eq!(said, "the parameter `timeout` is not a whole number of microseconds");
    let shared = json!({"shared_memory_region": "a", "shared_memory_byte_size": 8});
    let input = json!({"name": "index", "shape": [1], "datatype": "INT64", "parameters": shared});
    let said = refused(server.post("/v2/models/pick/infer", &json!({"inputs": [input]})).await, 400);
    assert_eq!(said, "input `index` is in shared memory, which is not read here: send it in the body");
}

#[tokio::test]
async fn the_server_says_who_it_is_and_what_it_can() {
    let server = Server::of("add").await;
    let (_, about) = server.get("/v2").await;
    assert_eq!(
        (&about["name"], &about["extensions"]),
        (
            &json!("modelway"),
            &json!([
                "binary_tensor_data",
                "generate",
                "model_configuration",
                "model_repository",
                "parameters",
                "schedule_policy",
                "statistics"
            ])
        )
    );
    for path in [
        "/health",
        "/ready",
        "/health/live",
        "/health/ready",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/add/ready",
    ] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    refused(server.get("/v3").await, 404);
}
