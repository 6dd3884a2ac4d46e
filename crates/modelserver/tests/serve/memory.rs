//! The memory that ONNX models compute in, where others hold most of it. It is bounded for the whole process, so that each
//! test is a process.

use std::{path::Path, time::Duration};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, UnderWay, client, config, models, refused};

/// What the process may allocate; four fifths of it are for the models.
const MEMORY: u64 = 1500 << 20;
/// Numbers of four bytes each: what is held, what fits beside nothing else, and what never fits.
const HELD: u64 = 150 << 20;
const FITS_ALONE: u64 = 200 << 20;
const NEVER_FITS: u64 = 400 << 20;

/// Runs a test of this name in another process.
async fn elsewhere(test: &str) {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", test]).kill_on_drop(true);
    let output = tokio::time::timeout(4 * PATIENCE, command.output()).await.expect("it ends in time").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

async fn server(root: &Path, names: &[&str]) -> Server {
    setrlimit(Resource::Data, Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) }).unwrap();
    for name in names {
        let folder = root.join("models").join(name).join("1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(models().join(name).join("model.onnx"), folder.join("model.onnx")).unwrap();
    }
    let mut settings = config(&root.join("models"));
    settings.python_dir = root.join("kept");
    Server::ready(settings).await
}

fn size(size: u64) -> Value {
    json!({"name": "size", "shape": [1], "datatype": "INT64", "data": [size]})
}

async fn peak(server: &Server, numbers: u64) -> (u16, Value) {
    server.post("/v2/models/peak/infer", &json!({"inputs": [size(numbers)]})).await
}

#[tokio::test]
async fn a_run_that_gets_no_memory_because_others_hold_it_is_to_be_tried_again() {
    elsewhere("memory::one_model_holds_what_another_needs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the other process of the test above"]
async fn one_model_holds_what_another_needs() {
    let root = tempfile::tempdir().unwrap();
    let server = server(root.path(), &["held", "peak"]).await;
    assert_eq!(peak(&server, FITS_ALONE).await.0, 200);
    let x = json!({"name": "x", "shape": [1], "datatype": "FP32", "data": [1000]});
    let body = json!({"inputs": [size(HELD), x]}).to_string();
    let request = client().post(format!("{}/v2/models/held/infer", server.url)).body(body);
    let holds = UnderWay::send(&server.tasks, request.send());
    let until = |wanted: u16| {
        let server = &server;
        let ask = async move {
            loop {
                let (status, body) = peak(server, FITS_ALONE).await;
                assert!(status == 200 || status == 503, "{status} {body}");
                if status == wanted {
                    return body;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ask)
    };
    let body = until(503).await.expect("the other model holds memory in time");
    let said = body["error"].as_str().unwrap();
    assert!(said.contains("more memory than other requests leave now") && said.ends_with("try again"), "{said}");
    // What no idle server has is the caller's to change, whatever others do.
    let said = refused(peak(&server, NEVER_FITS).await, 400);
    assert!(said.contains("asks for more memory in its Expand than there is"), "{said}");
    assert_eq!(peak(&server, 1 << 20).await.0, 200);
    drop(holds);
    until(200).await.expect("the memory is given back in time");
    assert!(refused(peak(&server, NEVER_FITS).await, 400).contains("than there is"));
    let metrics = server.text("/metrics").await;
    let counted = metrics.lines().find(|line| line.contains("memory_full") && line.contains("peak")).unwrap();
    assert!(!counted.ends_with(" 0"), "{counted}");
}
