use serde_json::json;

use crate::support::{Server, config, models, refused};

#[tokio::test]
async fn a_classifier_answers_labels_and_probabilities_in_the_documented_form() {
    let mut config = config(&models().join("iris"));
    config.model_name = Some("flowers".into());
    config.model_version = Some("1.0".into());
    let server = Server::ready(config).await;
    let body = json!({"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]});
    let (status, answer) = server.post("/v1/models/flowers:predict", &body).await;
    assert_eq!(status, 200, "{answer}");
    let fields: Vec<_> = answer.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["predictions", "probabilities", "model_name", "model_version"]);
    assert_eq!(answer["predictions"], json!([0, 2]));
    assert_eq!(answer["probabilities"][1].as_array().unwrap().len(), 3);
    assert_eq!((&answer["model_name"], &answer["model_version"]), (&json!("flowers"), &json!("1.0")));
    let (_, metadata) = server.get("/v1/models/flowers").await;
    assert_eq!(metadata, json!({"name": "flowers", "version": "1.0", "platform": "onnxruntime_onnx", "ready": true}));
}

#[tokio::test]
async fn columns_and_rows_of_several_inputs_give_the_same() {
    let server = Server::of("add").await;
    let expected = json!([{"sum": 11.0, "product": 10.0}, {"sum": 22.0, "product": 40.0}]);
    let rows = json!({"instances": [{"a": 1, "b": 10}, {"a": 2, "b": 20}]});
    assert_eq!(server.post("/v1/models/add:predict", &rows).await.1["predictions"], expected);
    let columns = json!({"inputs": {"a": [1, 2], "b": [10, 20]}});
    assert_eq!(server.post("/v1/models/add:predict", &columns).await.1["predictions"], expected);
}

#[tokio::test]
async fn a_wrong_v1_body_says_what_is_wrong() {
    let server = Server::of("add").await;
    let said = async |body| refused(server.post("/v1/models/add:predict", &body).await, 400);
    assert_eq!(said(json!({"instances": 3})).await, "Expected \"instances\" to be a list");
    assert!(said(json!({"instance": []})).await.contains("did you mean `instances`?"));
    assert!(said(json!({})).await.contains("`instances` is missing"));
    assert!(said(json!({"instances": [1, 2]})).await.contains("the model has 2 inputs"));
    assert!(said(json!({"instances": [{"a": 1, "b": 2}, {"a": 1}]})).await.contains("`b` is missing"));
    assert!(said(json!({"instances": [{"a": 1, "bb": 2}]})).await.contains("no input `bb`"));
    assert!(said(json!({"inputs": {"a": [1, "x"], "b": [1, 2]}})).await.contains("element 1 is the string"));
    refused(server.post("/v1/models/ad:predict", &json!({})).await, 404);
}
