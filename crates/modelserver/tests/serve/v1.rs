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
    assert!(said(json!({"inputs": []})).await.starts_with("`inputs` is empty"));
    assert!(said(json!({"inputs": [{"a": 1, "bb": 2}]})).await.starts_with("inputs[0]: "));
    assert!(said(json!({"instances": [{"a": 1, "b": 2}, {"a": 1}]})).await.contains("`b` is missing"));
    assert!(said(json!({"instances": [{"a": 1, "bb": 2}]})).await.contains("no input `bb`"));
    assert!(said(json!({"inputs": {"a": [1, "x"], "b": [1, 2]}})).await.contains("element 1 is the string"));
    refused(server.post("/v1/models/ad:predict", &json!({})).await, 404);
}

#[tokio::test]
async fn mixed_columns_come_as_objects_as_lists_in_order_or_whole() {
    let server = Server::of("mixed").await;
    let expected = json!([{"named": "red", "twice": 7.0}, {"named": "blue", "twice": -2.0}]);
    for body in [
        json!({"instances": [{"color": "red", "size": 3.5}, {"size": -1, "color": "blue"}]}),
        json!({"instances": [["red", 3.5], ["blue", -1]]}),
        json!({"instances": [[["red"], [3.5]], [["blue"], [-1]]]}),
        json!({"inputs": {"color": ["red", "blue"], "size": [3.5, -1]}}),
        json!({"inputs": {"color": [["red"], ["blue"]], "size": [[3.5], [-1]]}, "signature_name": "serving_default"}),
    ] {
        let (status, answer) = server.post("/v1/models/mixed:predict", &body).await;
        assert_eq!(status, 200, "{body} {answer}");
        let rows: Vec<_> = answer["predictions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| json!({"named": row["named"][0], "twice": row["twice"][0]}))
            .collect();
        assert_eq!(json!(rows), expected, "{body}");
    }
    let said = async |body| refused(server.post("/v1/models/mixed:predict", &body).await, 400);
    let words = said(json!({"instances": [["red", 3.5], ["blue"]]})).await;
    assert_eq!(words, "instances[1] has 1 values, the model has 2 inputs: `color`, `size`");
    let words = said(json!({"instances": [["red", 3.5], [7, 1]]})).await;
    assert_eq!(words, "`color`: element 1 is 7, not a string");
}

#[tokio::test]
async fn strings_come_in_base64_too_and_explanations_are_refused_in_words() {
    let server = Server::of("identity/BYTES").await;
    let body = json!({"instances": [["plain", {"b64": "aMOp"}], [{"b64": "aGk="}, ""]]});
    let (status, answer) = server.post("/v1/models/BYTES:predict", &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["predictions"], json!([["plain", "hé"], ["hi", ""]]));
    let said = async |wrong| refused(server.post("/v1/models/BYTES:predict", &wrong).await, 400);
    assert!(said(json!({"instances": [["a", {"b64": "%"}]]})).await.contains("element 1 is not base64"));
    assert!(said(json!({"instances": [["a", {"b65": "%"}]]})).await.contains("element 1 is an object"));
    assert!(said(json!({"instances": [["a", {"b64": "//8="}]]})).await.contains("not UTF-8"));
    refused(server.post("/v1/models/BYTES:explain", &body).await, 501);
    let mistyped = refused(server.post("/v1/models/BYTES:predic", &body).await, 404);
    assert!(mistyped.contains("{model}:predict"), "{mistyped}");
    assert!(said(json!({"instances": []})).await.contains("`instances` is empty"));
    let lines = json!({"instances": [[{"b64": "aM\r\nOp\n"}, ""]]});
    assert_eq!(server.post("/v1/models/BYTES:predict", &lines).await.1["predictions"], json!([["hé", ""]]));
    let one = json!({"instances": [["a", "b"]]});
    assert_eq!(server.post("/v1/models/BYTES/versions/1:predict", &one).await.0, 200);
    refused(server.post("/v1/models/BYTES/versions/2:predict", &one).await, 404);
}
