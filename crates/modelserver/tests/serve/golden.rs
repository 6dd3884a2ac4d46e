use std::path::Path;

use modelserver::{ServeError, golden};
use serde_json::{Value, json};

use crate::support::{Server, config, copy};

fn read(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap()
}

fn write(folder: &Path, golden: &Value) {
    std::fs::write(folder.join("golden.json"), golden.to_string()).unwrap();
}

/// How a server of this folder ends by itself.
async fn failure(folder: &Path) -> ServeError {
    Server::start(config(folder)).await.end().await.expect_err("it does not get ready")
}

#[tokio::test]
async fn recorded_examples_let_the_same_model_get_ready() {
    for model in ["iris", "add", "zipmap_names", "identity/BYTES"] {
        let folder = copy(model);
        let file = golden::record(&config(folder.path()), &[]).await.unwrap();
        assert_eq!(file, folder.path().join("golden.json"));
        assert_eq!(read(folder.path())["examples"].as_array().unwrap().len(), 3);
        Server::ready(config(folder.path())).await;
    }
}

#[tokio::test]
async fn examples_are_recorded_from_given_requests() {
    let folder = copy("pick");
    let request = folder.path().join("request.json");
    let body = json!({"inputs": [{"name": "index", "shape": [2], "datatype": "INT64", "data": [[3], [4]]}]});
    std::fs::write(&request, body.to_string()).unwrap();
    let said = golden::record(&config(folder.path()), std::slice::from_ref(&request)).await.unwrap_err().to_string();
    assert!(said.contains("request.json"), "{said}");
    let body = json!({"inputs": [{"name": "index", "shape": [2], "datatype": "INT64", "data": [3, 4]}]});
    std::fs::write(&request, body.to_string()).unwrap();
    golden::record(&config(folder.path()), &[request]).await.unwrap();
    let golden = read(folder.path());
    assert_eq!(golden["examples"][0]["response"]["outputs"][0]["data"], json!([3.0, 4.0]));
}

#[tokio::test]
async fn a_model_that_answers_differently_never_gets_ready_and_says_by_how_much() {
    let folder = copy("pick");
    let example = |expected: f64| {
        json!({
            "request": {"inputs": [{"name": "index", "shape": [2], "datatype": "INT64", "data": [3, 4]}]},
            "response": {"outputs": [{"name": "picked", "shape": [2], "datatype": "FP32", "data": [3.0, expected]}]},
        })
    };
    write(folder.path(), &json!({"examples": [example(4.0), example(4.25)]}));
    let mut settings = config(folder.path());
    let last_words = folder.path().join("termination.json");
    settings.termination_message = Some(last_words.clone());
    let error = Server::start(settings).await.end().await.unwrap_err();
    let words = "golden example 2: output `picked`[1] is 4, expected 4.25 (differs by 0.25, tolerance 4.35e-4)";
    assert_eq!(error.to_string(), words);
    assert_eq!((error.code(), error.exit_code()), ("golden_mismatch", 78));
    let written: Value = serde_json::from_slice(&std::fs::read(last_words).unwrap()).unwrap();
    assert_eq!(written, json!({"code": "golden_mismatch", "message": words}));

    write(folder.path(), &json!({"tolerance": {"absolute": 0.3}, "examples": [example(4.25)]}));
    Server::ready(config(folder.path())).await;
}

#[tokio::test]
async fn a_broken_golden_file_says_where() {
    let folder = copy("pick");
    write(folder.path(), &json!({"examples": [], "tolerances": {}}));
    let error = failure(folder.path()).await;
    assert_eq!(error.code(), "golden_invalid");
    assert!(error.to_string().contains("tolerances"), "{error}");
    write(folder.path(), &json!({"examples": [{"request": {"inputs": [{}]}, "response": {"outputs": []}}]}));
    let error = failure(folder.path()).await.to_string();
    assert!(error.contains("the request of example 1") && error.contains("inputs[0]"), "{error}");
}
