//! Inputs of ONNX models: which are wanted, and whose fault it is when the model cannot work with them.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Server, config, copy, models, refused};

fn tensor(name: &str, datatype: &str, shape: &[usize], data: Value) -> Value {
    json!({"name": name, "shape": shape, "datatype": datatype, "data": data})
}

async fn infer(server: &Server, model: &str, inputs: &[Value]) -> (u16, Value) {
    server.post(&format!("/v2/models/{model}/infer"), &json!({"inputs": inputs})).await
}

/// The data of the first output.
#[track_caller]
fn data((status, body): (u16, Value)) -> Value {
    assert_eq!(status, 200, "{body}");
    body["outputs"][0]["data"].clone()
}

#[tokio::test]
async fn a_scalar_is_one_value_and_nothing_is_broadcast_in_its_place() {
    let server = Server::of("gate").await;
    let x = || tensor("x", "FP32", &[2, 3], json!([1, 2, 3, 4, 5, 6]));
    let training = |shape: &[usize], data: Value| tensor("training", "BOOL", shape, data);
    let twice = json!([2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    assert_eq!(data(infer(&server, "gate", &[x(), training(&[], json!([false]))]).await), twice);
    assert_eq!(data(infer(&server, "gate", &[x(), training(&[1], json!([false]))]).await), twice);
    for (shape, values) in
        [(vec![2], json!([true, false])), (vec![3], json!([true, false, true])), (vec![0], json!([]))]
    {
        let said = refused(infer(&server, "gate", &[x(), training(&shape, values)]).await, 400);
        assert!(said.contains("input `training` has the shape") && said.contains("a scalar"), "{said}");
    }
}

#[tokio::test]
async fn instances_agree_on_the_value_of_a_scalar() {
    let server = Server::of("gate").await;
    let ask = async |body: Value| server.post("/v1/models/gate:predict", &body).await;
    let rows =
        |a: bool, b: bool| json!({"instances": [{"x": [1, 2, 3], "training": a}, {"x": [4, 5, 6], "training": b}]});
    assert_eq!(ask(rows(false, false)).await.1["predictions"], json!([[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]));
    assert_eq!(ask(rows(true, true)).await.1["predictions"], json!([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]));
    let said = refused(ask(rows(false, true)).await, 400);
    assert!(said.contains("one value of `training` for all rows") && said.contains("row 1"), "{said}");
    assert_eq!(refused(ask(json!({"instances": [[[1, 2, 3], true], [[1, 2, 3], false]]})).await, 400), said);
    let columns = json!({"inputs": {"x": [[1, 2, 3]], "training": false}});
    assert_eq!(ask(columns).await.1["predictions"], json!([[2.0, 4.0, 6.0]]));
}

#[tokio::test]
async fn an_input_without_a_rank_takes_any_shape() {
    let server = Server::of("unranked").await;
    for (shape, size) in [(vec![], json!([])), (vec![2], json!([2])), (vec![1, 2, 1], json!([1, 2, 1]))] {
        let count = shape.iter().product::<usize>();
        assert_eq!(
            data(infer(&server, "unranked", &[tensor("x", "FP32", &shape, json!(vec![1.0; count]))]).await),
            size
        );
    }
}

#[tokio::test]
async fn an_input_that_the_model_has_a_value_for_may_be_sent_and_left_out() {
    let server = Server::of("scaled").await;
    let x = || tensor("x", "FP32", &[1, 2], json!([1, 2]));
    assert_eq!(data(infer(&server, "scaled", &[x()]).await), json!([3.0, 6.0]));
    let scale = tensor("scale", "FP32", &[1], json!([10]));
    assert_eq!(data(infer(&server, "scaled", &[scale, x()]).await), json!([10.0, 20.0]));
    let wrong = tensor("scale", "FP32", &[2], json!([1, 2]));
    assert!(refused(infer(&server, "scaled", &[x(), wrong]).await, 400).contains("input `scale` has the shape [2]"));
    let columns = json!({"inputs": {"x": [[1, 2]], "scale": [5]}});
    assert_eq!(server.post("/v1/models/scaled:predict", &columns).await.1["predictions"], json!([[5.0, 10.0]]));
    let flat = server.post("/v2/models/scaled/generate", &json!({"x": [1, 2], "scale": [2]})).await;
    assert_eq!(flat.1["y"], json!([2.0, 4.0]), "{flat:?}");
}

#[tokio::test]
async fn a_config_makes_such_an_input_optional_and_others_may_be_reshaped() {
    let folder = tempfile::tempdir().unwrap();
    let place = |model: &str, config: &str| {
        fs::create_dir_all(folder.path().join(model).join("1")).unwrap();
        fs::write(folder.path().join(model).join("config.pbtxt"), config).unwrap();
        fs::copy(models().join(model).join("model.onnx"), folder.path().join(model).join("1/model.onnx")).unwrap();
    };
    place("scaled", "input [{ name: \"scale\" dims: [ 1 ] optional: true }]");
    let reshaped = "max_batch_size: 8
        input [{ name: \"x\" data_type: TYPE_FP32 dims: [ 1, 2, 1 ] reshape { shape: [ 2 ] } }]
        output [{ name: \"y\" data_type: TYPE_FP32 dims: [ 2, 1 ] reshape { shape: [ 2 ] } }]";
    place("over_rows", reshaped);
    let server = Server::ready(config(folder.path())).await;
    assert_eq!(data(infer(&server, "scaled", &[tensor("x", "FP32", &[1, 2], json!([1, 2]))]).await), json!([3.0, 6.0]));
    let (status, body) = infer(&server, "over_rows", &[tensor("x", "FP32", &[1, 1, 2, 1], json!([1, 2]))]).await;
    let output = &body["outputs"][0];
    assert_eq!((status, &output["shape"], &output["data"]), (200, &json!([1, 2, 1]), &json!([0.5, 1.0])), "{body}");
    let said = refused(infer(&server, "over_rows", &[tensor("x", "FP32", &[1, 2], json!([1, 2]))]).await, 400);
    assert!(said.contains("the model wants [-1, 1, 2, 1]"), "{said}");
    let (_, metadata) = server.get("/v2/models/over_rows").await;
    assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 1, 2, 1]), "{metadata}");
}

#[tokio::test]
async fn a_reshape_that_cannot_be_is_told_with_its_line() {
    let folder = copy("over_rows");
    let text = "input { name: \"x\" dims: [ -1, 3 ] reshape { shape: [ -1, 2 ] } }";
    fs::write(folder.path().join("config.pbtxt"), text).unwrap();
    let said = Server::start(config(folder.path())).await.end().await.unwrap_err().to_string();
    assert!(said.contains("line 1: input `x` has `dims` [-1, 3] and is reshaped to [-1, 2]"), "{said}");
}

/// Requests whose inputs differ in their rows are valid where the model can work with them.
#[tokio::test]
async fn inputs_of_differing_rows_run_alone() {
    let ask = async |model: &str, inputs: &[Value]| data(infer(&Server::of(model).await, model, inputs).await);
    let of = |name: &str, kind: &str, count: usize, data: Value| tensor(name, kind, &[count], data);
    let inputs = [tensor("a", "FP32", &[3, 2], json!([1, 2, 3, 4, 5, 6])), of("b", "BOOL", 2, json!([false, true]))];
    assert_eq!(ask("compress", &inputs).await, json!([3.0, 4.0]));
    let inputs = [of("a", "BOOL", 1, json!([true])), of("b", "BOOL", 3, json!([true, false, true]))];
    assert_eq!(ask("and", &inputs).await, json!([true, false, true]));
    let inputs = [tensor("a", "FP32", &[1, 2], json!([1, 2])), tensor("b", "FP32", &[2, 2], json!([1, 0, 0, 1]))];
    assert_eq!(ask("matmul", &inputs).await, json!([1.0, 2.0]));
    let inputs = [of("a", "BYTES", 1, json!(["x"])), of("b", "BYTES", 2, json!(["1", "2"]))];
    assert_eq!(ask("concat", &inputs).await, json!(["x1", "x2"]));
    // The rows of the answer need not be those of the request either.
    let inputs = [tensor("a", "FP32", &[2, 2], json!([1, 2, 3, 4])), of("b", "BOOL", 2, json!([false, true]))];
    assert_eq!(ask("compress", &inputs).await, json!([3.0, 4.0]));
}

#[tokio::test]
async fn values_that_the_model_cannot_work_with_are_the_callers() {
    let check = async |model: &str, inputs: &[Value], words: &[&str]| {
        let said = refused(infer(&Server::of(model).await, model, inputs).await, 400);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!said.contains("onnxruntime") && !said.contains(".cc") && !said.contains(".h:"), "{said}");
    };
    let numbers = |name: &str, data: &[i64]| tensor(name, "INT64", &[data.len()], json!(data));
    check("divide", &[numbers("a", &[1, 2]), numbers("b", &[1, 0])], &["Div", "zero"]).await;
    check("divide", &[numbers("a", &[1, 2]), numbers("b", &[1, 2, 3])], &["Div"]).await;
    let rows = tensor("a", "FP32", &[2, 2], json!([1, 2, 3, 4]));
    check("gather", &[rows.clone(), numbers("b", &[7])], &["Gather", "7"]).await;
    check("squeeze", &[rows.clone(), numbers("b", &[9])], &["Squeeze"]).await;
    check("matmul", &[rows, tensor("b", "FP32", &[3, 1], json!([1, 2, 3]))], &["dimension `k`"]).await;
}

/// The library reads a scalar that is not there as if it were: as zero, from memory that can be read.
#[tokio::test]
async fn an_empty_tensor_is_readable_memory_to_the_runtime() {
    let server = Server::of("dft").await;
    let x = tensor("a", "FP32", &[1, 4, 1], json!([1, 2, 3, 4]));
    let (one, none) = (|name, number: i64| tensor(name, "INT64", &[], json!([number])), json!([]));
    let (status, body) = infer(&server, "dft", &[x.clone(), one("b", 4), tensor("c", "INT64", &[0], none)]).await;
    assert!(matches!(status, 200 | 400), "{body}");
    assert_eq!(infer(&server, "dft", &[x, one("b", 4), one("c", 1)]).await.0, 200);
}

/// Texts that decide how wide the answer is must not decide it for another client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_width_of_an_answer_is_its_own() {
    for (model, datatype, rows) in [
        ("words", "BYTES", [json!(["a b c d e f"]), json!(["one"])]),
        ("few_columns", "FP32", [json!([1, 2, 3, 4]), json!([5000, 1, 1, 1])]),
    ] {
        let server = Server::of(model).await;
        let input = |data: &Value| {
            let shape = if datatype == "BYTES" { vec![1] } else { vec![1, 4] };
            [tensor("x", datatype, &shape, data.clone())]
        };
        let inputs = rows.each_ref().map(input);
        let alone = [infer(&server, model, &inputs[0]).await, infer(&server, model, &inputs[1]).await];
        assert_ne!(alone[0].1["outputs"][0]["shape"], alone[1].1["outputs"][0]["shape"], "{alone:?}");
        for _ in 0..5 {
            let both = (0..8).map(|place| infer(&server, model, &inputs[place % 2]));
            for (place, answer) in futures::future::join_all(both).await.into_iter().enumerate() {
                assert_eq!(answer, alone[place % 2]);
            }
        }
    }
}
