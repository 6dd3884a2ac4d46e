//! Inputs that end ONNX Runtime: the server goes on.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use modelserver::Config;
use serde_json::{Value, json};

use crate::support::{Server, config, models, refused};

/// A server of the models in `names`, with a folder of its own for what it keeps.
async fn server(root: &Path, names: &[&str]) -> Server {
    Server::ready(settings(root, names)).await
}

fn settings(root: &Path, names: &[&str]) -> Config {
    for name in names {
        let folder = root.join("models").join(name).join("1");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(models().join(name).join("model.onnx"), folder.join("model.onnx")).unwrap();
    }
    let mut settings = config(&root.join("models"));
    settings.python_dir = root.join("kept");
    settings
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

/// So many steps for one of the GRUs, and another input.
async fn steps(server: &Server, model: &str, steps: usize, other: Option<Value>) -> (u16, Value) {
    let mut inputs =
        vec![json!({"name": "x", "shape": [steps, 1, 3], "datatype": "FP32", "data": vec![0.5; 3 * steps]})];
    inputs.extend(other);
    server.post(&format!("/v2/models/{model}/infer"), &json!({"inputs": inputs})).await
}

#[tokio::test]
async fn inputs_that_are_too_small_inside_the_model_are_refused_and_larger_ones_are_tried_once() {
    let root = tempfile::tempdir().unwrap();
    let server = server(root.path(), &["shortened"]).await;
    for _ in 0..2 {
        for count in [9, 1, 4, 2, 3, 700] {
            let answer = steps(&server, "shortened", count, None).await;
            if count > 2 {
                assert_eq!(answer.0, 200, "{count}: {answer:?}");
            } else {
                let said = refused(answer, 400);
                assert!(
                    said.contains(&format!("cannot be run with `x` [{count}, 1, 3]: ONNX Runtime itself")),
                    "{said}"
                );
            }
        }
    }
    let kept: Vec<_> =
        fs::read_dir(root.path().join("kept/onnx")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let kept = kept.iter().find(|path| path.extension().is_some_and(|kind| kind == "sizes")).expect("a file of sizes");
    let sizes: Value = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
    assert_eq!(sizes, json!([[{"name": "x", "shape": [3, 1, 3], "number": null}]]));
}

#[tokio::test]
async fn a_size_that_counts_from_the_end_below_0_does_not_end_the_server() {
    let root = tempfile::tempdir().unwrap();
    let server = server(root.path(), &["until"]).await;
    for _ in 0..2 {
        for (count, status) in [(9, 200), (4, 200), (5, 400), (6, 200)] {
            let answer = steps(&server, "until", count, None).await;
            assert_eq!(answer.0, status, "{count}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn one_clients_values_do_not_refuse_anothers_inputs_of_the_same_form() {
    let root = tempfile::tempdir().unwrap();
    let server = server(root.path(), &["flagged"]).await;
    let flag = |flag: bool| Some(json!({"name": "flag", "shape": [1], "datatype": "BOOL", "data": [flag]}));
    for _ in 0..2 {
        let said = refused(steps(&server, "flagged", 0, flag(true)).await, 400);
        assert!(said.contains("cannot be run with `x` [0, 1, 3]: ONNX Runtime itself was ended by SIG"), "{said}");
        let answer = steps(&server, "flagged", 0, flag(false)).await;
        assert_eq!((answer.0, &answer.1["outputs"][0]["data"]), (200, &json!([0.0, 0.0])), "{answer:?}");
        assert_eq!(steps(&server, "flagged", 2, flag(true)).await.0, 200);
    }
}

#[tokio::test]
async fn a_model_whose_trials_take_long_holds_up_those_of_others_once() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), &["below", "scaled"]);
    settings.request_timeout_ms = 6000;
    let server = Server::ready(settings).await;
    let below = async |numbers: &[f32]| {
        let inputs = json!([
            {"name": "x", "shape": [numbers.len()], "datatype": "FP32", "data": numbers},
            {"name": "k", "shape": [], "datatype": "INT64", "data": [-1]},
        ]);
        server.post("/v2/models/below/infer", &json!({"inputs": inputs})).await
    };
    assert_eq!(below(&[1.0]).await.0, 503);
    // Another form of the same model stands before one of another model in the line.
    let began = Instant::now();
    let others = async {
        let answer = infer(&server, "scaled", &[0, 2]).await;
        (answer, began.elapsed())
    };
    let (slow, (answer, took)) = tokio::join!(biased; below(&[]), others);
    assert_eq!((slow.0, answer.0), (503, 200), "{slow:?} {answer:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// A server of `sliced`, which it serves in a process of its own, and of another model. The process is `program`.
async fn sliced(root: &Path, program: impl FnOnce(Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString>) -> Server {
    let mut settings = settings(root, &["sliced", "over_rows"]);
    settings.onnx_child = program(settings.onnx_child);
    Server::ready(settings).await
}

fn start(start: i64) -> Option<Value> {
    Some(json!({"name": "start", "shape": [1], "datatype": "INT64", "data": [start]}))
}

#[tokio::test]
async fn a_model_whose_process_cannot_be_started_again_says_so_at_once() {
    let root = tempfile::tempdir().unwrap();
    let program = root.path().join("program");
    let server = sliced(root.path(), |mut words| {
        std::os::unix::fs::symlink(&words[0], &program).unwrap();
        words[0] = program.clone().into();
        words
    })
    .await;
    assert_eq!(steps(&server, "sliced", 3, start(2)).await.0, 200);
    fs::remove_file(&program).unwrap();
    assert!(refused(steps(&server, "sliced", 3, start(3)).await, 400).contains("ended by SIG"));
    for _ in 0..3 {
        let said = refused(steps(&server, "sliced", 3, start(1)).await, 503);
        assert!(said.contains("a process for the model cannot be started"), "{said}");
    }
}

#[tokio::test]
async fn a_request_that_leaves_while_a_models_process_starts_again_leaves_it_to_the_next() {
    let root = tempfile::tempdir().unwrap();
    let (hold, starts) = (root.path().join("hold"), root.path().join("starts"));
    let server = sliced(root.path(), |words| {
        let script =
            format!("echo >> {}; while test -e {}; do sleep 0.02; done; exec \"$@\"", starts.display(), hold.display());
        ["sh".into(), "-c".into(), script.into(), "sh".into()].into_iter().chain(words).collect()
    })
    .await;
    let started = || fs::read_to_string(&starts).unwrap().lines().count();
    // The runs of loading may have ended the first one.
    assert_eq!(steps(&server, "sliced", 3, start(1)).await.0, 200);
    let before = started();
    fs::write(&hold, "").unwrap();
    assert!(refused(steps(&server, "sliced", 3, start(3)).await, 400).contains("ended by SIG"));
    let x = json!({"name": "x", "shape": [3, 1, 3], "datatype": "FP32", "data": vec![0.5; 9]});
    let hasty = json!({"inputs": [x, start(1)], "parameters": {"timeout": 300_000}});
    for _ in 0..2 {
        let said = refused(server.post("/v2/models/sliced/infer", &hasty).await, 503);
        assert!(said.contains("300 ms"), "{said}");
        assert_eq!(infer(&server, "over_rows", &[1, 2]).await.0, 200);
    }
    fs::remove_file(&hold).unwrap();
    assert_eq!(steps(&server, "sliced", 3, start(1)).await.0, 200);
    assert_eq!(started(), before + 1);
}
