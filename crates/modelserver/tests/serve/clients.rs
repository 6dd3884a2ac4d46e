//! Other people's clients, unchanged, in processes of their own: they must find here what they know.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio::process::Command;

use crate::support::{Server, config, models, refused};

/// Importing the clients' libraries alone takes seconds on a busy machine.
const LONGEST: Duration = Duration::from_secs(120);

/// The Python that has the clients.
#[allow(clippy::disallowed_methods, reason = "the cache is where the environment says")]
fn python() -> PathBuf {
    let cache = match std::env::var_os("MODELWAY_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/modelway"),
    };
    cache.join("clients/bin/python")
}

async fn server() -> Server {
    Server::ready(config(&models().join("triton"))).await
}

/// Runs a script against a server; its own words say what failed.
async fn run(server: &Server, script: &str, parts: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    let address = server.url.strip_prefix("http://").unwrap();
    let python = python();
    let mut command = Command::new(&python);
    command.arg(&script).arg(address).args(parts).kill_on_drop(true);
    let output = tokio::time::timeout(LONGEST, command.output()).await.expect("the client ends in time");
    let output = output.unwrap_or_else(|e| panic!("{}: {e}; `scripts/setup.sh test` makes it", python.display()));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}:\n{}", script.display(), String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tritons_http_client_finds_what_it_knows() {
    run(&server().await, "triton_http.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tritons_grpc_client_finds_what_it_knows() {
    run(&server().await, "triton_grpc.py", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn kserves_clients_find_what_they_know() {
    run(&server().await, "kserve_clients.py", &[]).await;
}

/// MLServer says by `content_type` how its codecs read a tensor; the tensor itself says all that matters here.
#[tokio::test]
async fn mlservers_json_is_understood_with_its_content_types() {
    let server = server().await;
    let number = |name: &str| {
        let parameters = json!({"content_type": "np"});
        json!({"name": name, "shape": [1, 16], "datatype": "INT32", "data": vec![2; 16], "parameters": parameters})
    };
    let body = json!({
        "id": "m1",
        "parameters": {"content_type": "pd"},
        "inputs": [number("INPUT0"), number("INPUT1")],
        "outputs": [{"name": "OUTPUT0", "parameters": {"content_type": "np"}}],
    });
    let (status, answer) = server.post("/v2/models/simple/infer", &body).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!(vec![4; 16])), "{answer}");
    assert_eq!((&answer["id"], answer["outputs"].as_array().unwrap().len()), (&json!("m1"), 1));

    let words = json!({"name": "INPUT0", "shape": [2, 1], "datatype": "BYTES", "data": ["one", "zwei"],
        "parameters": {"content_type": "str"}});
    let (status, answer) = server.post("/v2/models/simple_identity/infer", &json!({"inputs": [words]})).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!(["one", "zwei"])), "{answer}");

    let wrong = server.post("/v2/models/simpel/infer", &json!({"inputs": []})).await;
    assert!(refused(wrong, 404).contains("did you mean `simple`?"));
}
