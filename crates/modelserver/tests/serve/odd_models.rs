use std::{
    fs::{self, OpenOptions},
    path::Path,
};

use serde_json::{Value, json};

use crate::support::{Server, config, copy, models, refused};

fn floats(name: &str, shape: &[usize], data: &[f32]) -> Value {
    json!({"name": name, "shape": shape, "datatype": "FP32", "data": data})
}

async fn infer(server: &Server, model: &str, inputs: Value) -> (u16, Value) {
    server.post(&format!("/v2/models/{model}/infer"), &json!({"inputs": inputs})).await
}

async fn not_loaded(model: &Path) -> String {
    Server::start(config(model)).await.end().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_sequence_of_tensors_of_one_shape_is_one_tensor_and_another_an_error() {
    let server = Server::of("sequence").await;
    let sizes = |sizes: &[i64]| json!({"name": "sizes", "shape": [sizes.len()], "datatype": "INT64", "data": sizes});
    let x = floats("x", &[4, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]);
    let (status, body) = infer(&server, "sequence", json!([x, sizes(&[2, 2])])).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["outputs"][0]["shape"], json!([4, 2]));
    assert_eq!(body["outputs"][1]["shape"], json!([2, 2, 2]));
    assert_eq!(body["outputs"][1]["data"], x["data"]);
    let said = refused(infer(&server, "sequence", json!([x, sizes(&[1, 3])])).await, 400);
    assert!(
        said.contains("output `ragged`: its tensors have different shapes (the first [1, 2], number 1 [3, 2])"),
        "{said}"
    );
}

#[tokio::test]
async fn an_optional_output_is_sent_when_it_is_there_and_the_model_goes_on_when_not() {
    let server = Server::of("optional").await;
    let inputs = |some: bool| json!([floats("x", &[2], &[1., 2.]), {"name": "some", "shape": [1], "datatype": "BOOL", "data": [some]}]);
    for _ in 0..2 {
        let (status, body) = infer(&server, "optional", inputs(true)).await;
        assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([1.0, 2.0])), "{body}");
        let said = refused(infer(&server, "optional", inputs(false)).await, 400);
        assert!(said.contains("leaves out an optional output"), "{said}");
    }
}

#[tokio::test]
async fn the_files_of_a_loaded_model_may_be_shortened_and_deleted() {
    let folder = copy("external");
    let weights = folder.path().join("model.onnx.data");
    fs::copy(models().join("external/model.onnx.data"), &weights).unwrap();
    let mut settings = config(folder.path());
    settings.model_name = Some("external".into());
    let server = Server::ready(settings).await;
    let x: Vec<f32> = vec![1.0; 256];
    let answer = infer(&server, "external", json!([floats("x", &[1, 256], &x)])).await;
    assert_eq!((answer.0, &answer.1["outputs"][0]["data"][255]), (200, &json!(2.0)), "{answer:?}");
    for file in [&weights, &folder.path().join("model.onnx")] {
        OpenOptions::new().write(true).open(file).unwrap().set_len(0).unwrap();
        assert_eq!(infer(&server, "external", json!([floats("x", &[1, 256], &x)])).await, answer);
        fs::remove_file(file).unwrap();
        assert_eq!(infer(&server, "external", json!([floats("x", &[1, 256], &x)])).await, answer);
    }
    let metadata = fs::metadata(&weights);
    assert!(metadata.is_err());
}

#[tokio::test]
async fn weights_that_are_missing_or_short_are_named() {
    let folder = copy("external");
    let said = not_loaded(folder.path()).await;
    assert!(said.contains("model.onnx.data"), "{said}");
    fs::write(folder.path().join("model.onnx.data"), "short").unwrap();
    let said = not_loaded(folder.path()).await;
    assert!(said.contains("cannot be loaded"), "{said}");
}

#[tokio::test]
async fn a_run_past_its_deadline_is_ended_and_the_model_goes_on() {
    let server = Server::of("endless").await;
    let mut late = json!({"inputs": [floats("x", &[1], &[1000.])], "parameters": {"timeout": 300_000}});
    let said = server.post("/v2/models/endless/infer", &late).await;
    assert!(said.1["error"].as_str().unwrap().contains("300 ms"), "{said:?}");
    // It would wait behind the endless one.
    late["inputs"] = json!([floats("x", &[1], &[1.])]);
    late["parameters"] = json!({});
    assert_eq!(server.post("/v2/models/endless/infer", &late).await.0, 200);
}

#[tokio::test]
async fn a_run_that_wants_all_memory_fails_by_itself() {
    let server = Server::of("expand").await;
    let size = |size: i64| json!([{"name": "size", "shape": [1], "datatype": "INT64", "data": [size]}]);
    for large in [1i64 << 45, 1 << 62] {
        let said = refused(infer(&server, "expand", size(large)).await, 400);
        assert!(said.contains("asks for more memory in its Expand than there is"), "{said}");
    }
    assert_eq!(infer(&server, "expand", size(3)).await.1["outputs"][0]["data"], json!([1.0, 1.0, 1.0]));
}

#[tokio::test]
async fn what_a_signature_cannot_say_is_told_with_the_operator_and_the_shapes() {
    let server = Server::of("pairs").await;
    let said = refused(infer(&server, "pairs", json!([floats("x", &[3], &[1., 2., 3.])])).await, 400);
    assert!(said.starts_with("the model refuses these inputs in its Reshape: "), "{said}");
    assert!(said.contains("(the inputs' shapes: `x` [3])") && !said.contains("onnxruntime"), "{said}");
}

#[tokio::test]
async fn inputs_of_differing_rows_are_the_callers_fault_and_both_are_named() {
    let server = Server::of("add").await;
    let inputs = json!([floats("a", &[4], &[1., 2., 3., 4.]), floats("b", &[2], &[1., 2.])]);
    let said = refused(infer(&server, "add", inputs).await, 400);
    assert!(said.contains("`a`") && said.contains("`b`") && said.contains('4') && said.contains('2'), "{said}");
}

#[tokio::test]
async fn rows_that_influence_one_another_are_answered_as_if_alone() {
    let server = Server::of("over_rows").await;
    let ask = |number: f32| {
        let inputs = json!([floats("x", &[1, 2], &[number, 2.0 * number])]);
        let server = &server;
        async move { infer(server, "over_rows", inputs).await.1["outputs"][0]["data"].clone() }
    };
    for _ in 0..50 {
        let (a, b, c, d) = tokio::join!(ask(1.), ask(2.), ask(3.), ask(400.));
        assert_eq!([a, b, c, d], [json!([0.5, 1.0]), json!([0.5, 1.0]), json!([0.5, 1.0]), json!([0.5, 1.0])]);
    }
}

#[tokio::test]
async fn a_model_that_this_runtime_cannot_run_is_told_with_the_versions() {
    let check = async |model: &str, parts: &[&str]| {
        let said = not_loaded(&models().join(model)).await;
        for part in parts {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("onnxruntime_src"), "{said}");
    };
    check("opset/new", &["its opset 99 is newer than this ONNX Runtime, which knows up to "]).await;
    check("opset/new_ir", &["its IR version is 99, this ONNX Runtime reads up to "]).await;
    check("opset/old", &["its opset 1 is older than this ONNX Runtime", "7 or newer"]).await;
    check("no_kernel", &["cannot run operator Acosh on a CPU with the datatypes"]).await;
    check("unknown_operator", &["there is no operator `Frobnicate` in opset 18"]).await;
    check("broken", &["it is no ONNX model, or its end is missing"]).await;
}

#[tokio::test]
async fn a_model_that_loops_on_made_up_inputs_does_not_hold_the_server_up() {
    let mut settings = config(&models().join("always_endless"));
    settings.request_timeout_ms = 300;
    let server = Server::ready(settings).await;
    let inputs = json!([floats("x", &[1], &[1.])]);
    for _ in 0..2 {
        let said = infer(&server, "always_endless", inputs.clone()).await;
        assert!(said.1["error"].as_str().unwrap().contains("300 ms"), "{said:?}");
    }
}
