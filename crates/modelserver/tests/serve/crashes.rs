//! Inputs that end ONNX Runtime: the server goes on.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::{Server, config, models, refused};

/// A server of the models in `names`, with a folder of its own for what it keeps.
async fn server(root: &Path, names: &[&str]) -> Server {
    for name in names {
        let folder = root.join("models").join(name).join("1");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(models().join(name).join("model.onnx"), folder.join("model.onnx")).unwrap();
    }
    let mut settings = config(&root.join("models"));
    settings.python_dir = root.join("kept");
    Server::ready(settings).await
}

async fn infer(server: &Server, model: &str, shape: &[usize]) -> (u16, Value) {
    let data = vec![0.0; shape.iter().product()];
    let input = json!({"name": "x", "shape": shape, "datatype": "FP32", "data": data});
    server.post(&format!("/v2/models/{model}/infer"), &json!({"inputs": [input]})).await
}

#[tokio::test]
async fn inputs_that_end_the_runtime_are_refused_and_nobody_else_notices() {
    let root = tempfile::tempdir().unwrap();
    let server = server(root.path(), &["recurrent", "over_rows"]).await;
    for _ in 0..2 {
        let said = refused(infer(&server, "recurrent", &[0, 1, 3]).await, 400);
        assert!(said.contains("cannot be run with `x` [0, 1, 3]: ONNX Runtime itself was ended by SIG"), "{said}");
        let input = json!({"name": "x", "shape": [0, 1, 3], "datatype": "FP32", "data": []});
        let (_, streamed) = server.post("/v2/models/recurrent/infer_stream", &json!({"inputs": [input]})).await;
        assert!(streamed.to_string().contains("ONNX Runtime itself was ended by SIG"), "{streamed}");
        assert_eq!(infer(&server, "recurrent", &[2, 1, 3]).await.0, 200);
        assert_eq!(infer(&server, "over_rows", &[1, 2]).await.0, 200);
    }
    // It is known from then on, also to the next server.
    let kept: Vec<_> =
        fs::read_dir(root.path().join("kept/onnx")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let kept = kept.iter().find(|path| path.extension().is_some_and(|kind| kind == "json")).expect("a file of forms");
    assert!(fs::read_to_string(kept).unwrap().contains("x[0nn]"));
}

#[tokio::test]
async fn a_count_of_zero_that_ends_the_runtime_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let server = server(root.path(), &["frames"]).await;
    let ask = async |length: i64| {
        let inputs = json!([
            {"name": "x", "shape": [1, 16, 1], "datatype": "FP32", "data": vec![1.0; 16]},
            {"name": "length", "shape": [], "datatype": "INT64", "data": [length]},
        ]);
        server.post("/v2/models/frames/infer", &json!({"inputs": inputs})).await
    };
    for _ in 0..2 {
        assert_eq!(ask(4).await.0, 200);
        let said = refused(ask(0).await, 400);
        assert!(said.contains("cannot be run with `length` 0: ONNX Runtime itself was ended by SIGFPE"), "{said}");
    }
}

#[tokio::test]
async fn inputs_without_elements_that_do_no_harm_are_answered() {
    let root = tempfile::tempdir().unwrap();
    let server = server(root.path(), &["scaled"]).await;
    for _ in 0..2 {
        let (status, body) = infer(&server, "scaled", &[0, 2]).await;
        let output = &body["outputs"][0];
        assert_eq!((status, &output["shape"], &output["data"]), (200, &json!([0, 2]), &json!([])), "{body}");
    }
}

#[tokio::test]
async fn a_model_that_ended_its_server_is_served_in_a_process_of_its_own_and_the_index_says_so() {
    let root = tempfile::tempdir().unwrap();
    let key = {
        let server = server(root.path(), &["scaled"]).await;
        assert_eq!(infer(&server, "scaled", &[0, 2]).await.0, 200);
        let mut kept = fs::read_dir(root.path().join("kept/onnx")).unwrap().map(|entry| entry.unwrap().path());
        let forms = kept.find(|path| path.extension().is_some_and(|kind| kind == "json")).unwrap();
        forms.file_stem().unwrap().to_str().unwrap().to_owned()
    };
    fs::write(root.path().join("kept/onnx/crashes"), format!("{key} 11 \n")).unwrap();
    let server = server(root.path(), &["scaled", "over_rows"]).await;
    let (_, index) = server.post("/v2/repository/index", &json!({})).await;
    let reason = |name: &str| {
        let entry = index.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap();
        assert_eq!(entry["state"], "READY");
        entry["reason"].as_str().unwrap().to_owned()
    };
    assert!(reason("scaled").contains("process of its own: it ended its process with SIGSEGV"), "{index}");
    assert_eq!(reason("over_rows"), "");
    let (status, body) = infer(&server, "scaled", &[2, 2]).await;
    assert_eq!((status, &body["outputs"][0]["shape"]), (200, &json!([2, 2])), "{body}");
    assert_eq!(infer(&server, "scaled", &[0, 2]).await.0, 200);
    let wrong = json!({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]});
    assert!(refused(server.post("/v2/models/scaled/infer", &wrong).await, 400).contains("the model wants [-1, 2]"));
}
