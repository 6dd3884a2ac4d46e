use serde_json::{Value, json};

use crate::support::{Server, config, python};

/// A server of one of the Python models beside the tests.
async fn serve(model: &str) -> Server {
    Server::ready(settings(model)).await
}

fn settings(model: &str) -> modelserver::Config {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/python");
    let mut settings = config(&folder.join(format!("{model}.py")));
    settings.python = Some(python().display().to_string());
    settings
}

/// A request with one input.
fn one(name: &str, datatype: &str, shape: &[usize], data: Value) -> Value {
    json!({"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]})
}

#[tokio::test]
async fn a_model_of_arrays_predicts() {
    let server = serve("double").await;
    let (status, answer) =
        server.post("/v2/models/double/infer", &one("x", "FP32", &[2, 2], json!([1, 2, 3, 4.5]))).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!([2.0, 4.0, 6.0, 9.0])), "{answer}");
}
