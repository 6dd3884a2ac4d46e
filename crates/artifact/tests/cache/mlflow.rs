//! Models that a real MLflow server names: `scripts/mlflow.sh` installs it once and runs it for this test.
//!
//! It needs most of a minute to start, so that it is started once, and each part of the test has models of its own.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use modelway_artifact::{ArtifactError, Config};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    config, fetch, folder,
    server::{Mishap, Server},
    text,
};

/// How long the server may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

struct Mlflow {
    script: Child,
    /// The server ends when this does.
    input: Option<ChildStdin>,
    data: TempDir,
    url: String,
    client: Client,
}

impl Drop for Mlflow {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.script.wait();
    }
}

impl Mlflow {
    async fn start() -> Self {
        let data = folder();
        let port = {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            free.local_addr().expect("it has an address").port()
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/mlflow.sh");
        let mut script = Command::new(script)
            .args(["serve", &port.to_string()])
            .arg(data.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("the script runs");
        let input = script.stdin.take();
        let client = base::client::builder().no_proxy().build().expect("a client");
        let mlflow = Self { script, input, data, url: format!("http://127.0.0.1:{port}"), client };
        let listens = async {
            while !mlflow.client.get(format!("{}/health", mlflow.url)).send().await.is_ok_and(|a| a.status() == 200) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, listens).await;
        assert!(waited.is_ok(), "MLflow does not listen: {}", text(&mlflow.data.path().join("log")));
        mlflow
    }

    fn config(&self, folder: &TempDir) -> Config {
        Config { mlflow_tracking_uri: self.url.clone(), ..config(folder) }
    }

    async fn ask(&self, method: Method, call: &str, body: Value) -> Value {
        let url = format!("{}/api/2.0/mlflow/{call}", self.url);
        let answer = self.client.request(method, url).json(&body).send().await.expect("it answers");
        let status = answer.status();
        let body = answer.json().await.unwrap_or_default();
        assert!(status.is_success(), "{call}: {body}");
        body
    }

    async fn post(&self, call: &str, body: Value) -> Value {
        self.ask(Method::POST, call, body).await
    }

    /// Logs a model of one file beside its description; its id.
    async fn log(&self, run: Option<&str>, name: &str, weights: &str) -> String {
        let mut wanted = json!({"experiment_id": "0", "name": name});
        if let Some(run) = run {
            wanted["source_run_id"] = json!(run);
        }
        let made = self.post("logged-models", wanted).await;
        let id = made["model"]["info"]["model_id"].as_str().expect("an id").to_owned();
        let place = format!("0/models/{id}/artifacts");
        self.put(&format!("{place}/MLmodel"), &format!("model_uuid: {id}\n")).await;
        self.put(&format!("{place}/data/model.bin"), weights).await;
        let ready = json!({"model_id": id, "status": "LOGGED_MODEL_READY"});
        self.ask(Method::PATCH, &format!("logged-models/{id}"), ready).await;
        id
    }

    async fn put(&self, path: &str, content: &str) {
        let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.url);
        let answer = self.client.put(url).body(content.to_owned()).send().await.expect("it answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    /// A new version of a registered model.
    async fn version(&self, name: &str, weights: &str) {
        let id = self.log(None, name, weights).await;
        let wanted = json!({"name": name, "source": format!("models:/{id}"), "model_id": id});
        self.post("model-versions/create", wanted).await;
    }

    async fn stage(&self, name: &str, version: &str, stage: &str) {
        let wanted =
            json!({"name": name, "version": version, "stage": stage, "archive_existing_versions": stage != "Archived"});
        self.post("model-versions/transition-stage", wanted).await;
    }

    /// The files that the server keeps.
    fn kept(&self, path: &str) -> PathBuf {
        self.data.path().join("artifacts").join(path)
    }
}

#[tokio::test]
async fn a_model_is_found_under_every_name_that_mlflow_gives_it() {
    let mlflow = Mlflow::start().await;
    versions_stages_and_aliases_are_resolved_each_time(&mlflow).await;
    what_is_not_there_is_told_with_what_is(&mlflow).await;
    a_run_s_files_are_found(&mlflow).await;
    another_place_of_the_files_is_followed(&mlflow).await;
    what_was_found_is_served_when_the_registry_is_gone(mlflow).await;
}

async fn versions_stages_and_aliases_are_resolved_each_time(mlflow: &Mlflow) {
    let name = "predictive maintenance";
    mlflow.post("registered-models/create", json!({"name": name})).await;
    for weights in ["one", "two", "three"] {
        mlflow.version(name, weights).await;
    }
    mlflow.stage(name, "2", "Production").await;
    mlflow.post("registered-models/alias", json!({"name": name, "alias": "champion", "version": "1"})).await;
    let (folder, sought) = (folder(), |rest: &str| format!("models:/{name}{rest}"));
    let config = mlflow.config(&folder);
    for (rest, weights, version) in [
        ("/1", "one", ""),
        ("/3", "three", ""),
        ("/latest", "three", " → version 3"),
        ("/Production", "two", " → version 2"),
        ("/production", "two", " → version 2"),
        ("@champion", "one", " → version 1"),
    ] {
        let fetched = fetch(&config, &sought(rest)).await.expect(rest);
        assert_eq!(text(&fetched.path.join("data/model.bin")), weights, "{rest}");
        assert!(text(&fetched.path.join("MLmodel")).contains("m-"), "{rest}");
        assert_eq!(fetched.uri, format!("{}{version}", sought(rest)));
    }
    let before = fetch(&config, &sought("/Production")).await.expect("it is there").digest;

    // A stage that moved means other files; the same version is never downloaded again, so that the files may be gone.
    std::fs::rename(mlflow.kept("0/models"), mlflow.kept("0/gone")).expect("they can be moved");
    mlflow.stage(name, "1", "Production").await;
    let moved = fetch(&config, &sought("/Production")).await.expect("version 1 is at hand");
    assert_eq!(text(&moved.path.join("data/model.bin")), "one");
    assert_ne!(moved.digest, before);
    assert_eq!(moved.uri, sought("/Production → version 1"));
    std::fs::rename(mlflow.kept("0/gone"), mlflow.kept("0/models")).expect("they can be moved");
}

async fn what_is_not_there_is_told_with_what_is(mlflow: &Mlflow) {
    mlflow.post("registered-models/create", json!({"name": "empty"})).await;
    mlflow.post("registered-models/create", json!({"name": "iris"})).await;
    mlflow.version("iris", "one").await;
    mlflow.version("iris", "two").await;
    mlflow.stage("iris", "1", "Archived").await;
    mlflow.post("registered-models/alias", json!({"name": "iris", "alias": "champion", "version": "2"})).await;
    let folder = folder();
    let config = mlflow.config(&folder);
    for (uri, words) in [
        ("models:/irs/Production", "has no model `irs`; did you mean `iris`?"),
        ("models:/zebra/1", "has no model `zebra`; it has empty, iris, predictive maintenance"),
        ("models:/iris/7", "`iris` has no version 7; it has 2, 1"),
        (
            "models:/iris/Production",
            "no version of `iris` is in Production; there is version 2 in no stage, version 1 in Archived",
        ),
        ("models:/iris/Prodution", "`Prodution` is not a stage; did you mean Production?"),
        ("models:/iris/champion", "`champion` is an alias, not a stage: write models:/iris@champion"),
        ("models:/iris@chmpion", "`iris` has no alias `chmpion`; did you mean `champion`?"),
        ("models:/iris@other", "it has `champion` (version 2)"),
        ("models:/empty/latest", "`empty` is registered, but has no version yet"),
        ("models:/m-0123", "has no logged model `m-0123`"),
        ("runs:/0123/model", "has no run `0123`"),
        ("mlflow-artifacts:/no/such", "found nothing at mlflow-artifacts:/no/such"),
    ] {
        let error = fetch(&config, uri).await.expect_err(uri);
        assert!(error.to_string().contains(words), "{uri}: {error}");
        assert_eq!((error.code(), error.may_pass()), ("artifact_missing", false), "{uri}: {error}");
    }
}

async fn a_run_s_files_are_found(mlflow: &Mlflow) {
    let run = mlflow.post("runs/create", json!({"experiment_id": "0", "start_time": 0})).await;
    let run = run["run"]["info"]["run_id"].as_str().expect("an id").to_owned();
    let id = mlflow.log(Some(&run), "model", "logged").await;
    mlflow.put(&format!("0/{run}/artifacts/older/MLmodel"), "model_uuid: a\n").await;
    mlflow.put(&format!("0/{run}/artifacts/older/model.bin"), "by the run").await;
    mlflow.put(&format!("0/{run}/artifacts/only one.onnx"), "alone").await;
    let folder = folder();
    let config = mlflow.config(&folder);
    let read = |uri: String, file: &'static str| {
        let config = config.clone();
        async move {
            let fetched = fetch(&config, &uri).await.unwrap_or_else(|error| panic!("{uri}: {error}"));
            text(&if file.is_empty() { fetched.path.clone() } else { fetched.path.join(file) })
        }
    };
    assert_eq!(read(format!("runs:/{run}/model"), "data/model.bin").await, "logged");
    assert_eq!(read(format!("runs:/{run}/model/data"), "model.bin").await, "logged");
    assert_eq!(read(format!("models:/{id}"), "data/model.bin").await, "logged");
    assert_eq!(read(format!("runs:/{run}/older"), "model.bin").await, "by the run");
    assert_eq!(read(format!("runs:/{run}/only one.onnx"), "").await, "alone");
    assert_eq!(read(format!("mlflow-artifacts:/0/models/{id}/artifacts"), "data/model.bin").await, "logged");
    let host = mlflow.url.strip_prefix("http://").expect("it is plain");
    assert_eq!(read(format!("mlflow-artifacts://{host}/0/models/{id}/artifacts"), "data/model.bin").await, "logged");

    // A run may log the same path again, with as many bytes: the description tells them apart.
    mlflow.put(&format!("0/{run}/artifacts/older/MLmodel"), "model_uuid: b\n").await;
    mlflow.put(&format!("0/{run}/artifacts/older/model.bin"), "once more!").await;
    assert_eq!(read(format!("runs:/{run}/older"), "model.bin").await, "once more!");
}

async fn another_place_of_the_files_is_followed(mlflow: &Mlflow) {
    let here = folder();
    std::fs::create_dir_all(here.path().join("model")).expect("it can be made");
    std::fs::write(here.path().join("model/model.bin"), "on this disk").expect("it can be written");
    mlflow.post("registered-models/create", json!({"name": "elsewhere"})).await;
    let run = mlflow.post("experiments/create", json!({"name": "local", "artifact_location": here.path()})).await;
    let experiment = run["experiment_id"].as_str().expect("an id").to_owned();
    let run = mlflow.post("runs/create", json!({"experiment_id": experiment, "start_time": 0})).await;
    let run = run["run"]["info"]["run_id"].as_str().expect("an id").to_owned();
    let place = here.path().join(&run).join("artifacts");
    std::fs::create_dir_all(&place).expect("it can be made");
    std::fs::rename(here.path().join("model"), place.join("model")).expect("it can be moved");
    let folder = folder();
    let config = mlflow.config(&folder);
    let uri = format!("runs:/{run}/model");
    let fetched = fetch(&config, &uri).await.expect("it is on this disk");
    assert_eq!(text(&fetched.path.join("model.bin")), "on this disk");
    let narrow = Config { schemes: vec!["runs".to_owned()], ..config.clone() };
    let refused = fetch(&narrow, &uri).await.expect_err("the place is not allowed");
    assert!(refused.to_string().contains("not file; the setting is `schemes`"), "{refused}");
    std::fs::remove_dir_all(here.path()).expect("it can be removed");
    let error = fetch(&config, &uri).await.expect_err("it is gone");
    assert!(error.to_string().contains("on its own machine"), "{error}");
}

async fn what_was_found_is_served_when_the_registry_is_gone(mlflow: Mlflow) {
    let folder = folder();
    let config = mlflow.config(&folder);
    let uri = "models:/iris/latest";
    drop(fetch(&config, uri).await.expect("it is there"));
    let url = mlflow.url.clone();
    drop(mlflow);
    let fetched = fetch(&config, uri).await.expect("it is at hand");
    assert_eq!(text(&fetched.path.join("data/model.bin")), "two");
    let error = fetch(&config, "models:/iris/1").await.expect_err("nobody can say where it is");
    assert!(matches!(error, ArtifactError::Unavailable { .. }) && error.may_pass(), "{error}");
    let said = error.to_string();
    assert!(said.contains(&url) && said.contains("MLFLOW_TRACKING_URI"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_not_named_or_no_server_is_said() {
    let folder = folder();
    let with = |uri: &str| Config { mlflow_tracking_uri: uri.to_owned(), ..config(&folder) };
    for (tracking, words) in [
        ("sqlite:///mlflow.db", "`mlflow server --backend-store-uri sqlite:///mlflow.db`"),
        ("databricks", "which is not there"),
    ] {
        let error = fetch(&with(tracking), "models:/iris/1").await.expect_err(tracking);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!((error.code(), error.may_pass()), ("mlflow_not_configured", false));
    }
}

#[tokio::test]
async fn a_server_that_is_no_mlflow_is_said_and_who_we_are_is_asked_for() {
    let (folder, server) = (folder(), Server::start().await);
    let config = Config { mlflow_tracking_uri: server.url(""), ..config(&folder) };
    let error = fetch(&config, "models:/iris/1").await.expect_err("it is none");
    assert!(error.to_string().contains("not like an MLflow server"), "{error}");
    server.mishap(Mishap::Status(401));
    let error = fetch(&config, "models:/iris/1").await.expect_err("nobody is let in");
    assert_eq!(error.code(), "artifact_denied");
    assert!(error.to_string().contains("set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"), "{error}");
}
