//! MLflow models by their names in a real registry, served by the real binary.
//!
//! One MLflow server and its models are shared by all tests here: it needs most of a minute to start.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    fs::File,
    process::{Child, Command},
    time::Duration,
};

use modelway_e2e::{Answer, Mlflow, Modelway, Role, client, free_port, kill, python};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// The registry, and what each of its models answers to [`rows`], as its library says it.
struct Registry {
    mlflow: Mlflow,
    answers: Value,
}

async fn registry() -> &'static Registry {
    static REGISTRY: OnceCell<Registry> = OnceCell::const_new();
    let start = || async {
        let mlflow = Mlflow::start().await;
        let answers = mlflow.log_models();
        Registry { mlflow, answers }
    };
    REGISTRY.get_or_init(start).await
}

fn rows() -> Value {
    json!([[75.3, 24, 0.15, 0.65, 0.8, 2.5, 1, 0, 0, 0], [60.2, 36, 0.25, 0.45, 1.2, 5.0, 0, 1, 1, 1]])
}

/// `modelway serve`, in a folder of its own.
struct Served {
    modelway: Modelway,
    child: Child,
    port: u16,
}

impl Served {
    /// Starts it with these arguments, and waits until it is ready.
    async fn start(registry: &Registry, arguments: &[&str]) -> Self {
        let modelway = Modelway::new();
        let port = free_port();
        let text = port.to_string();
        let child = command(&modelway, registry, arguments)
            .args(["--port", &text])
            .stderr(File::create(modelway.data_dir().with_extension("log")).unwrap())
            .spawn()
            .unwrap();
        let mut served = Self { modelway, child, port };
        // The first one builds the model's environment, which is kept for the next.
        let ready = async {
            loop {
                if served.child.try_wait().unwrap().is_some() {
                    panic!("it ended: {}", served.log());
                }
                let answer = served.try_ask("/ready").await;
                if answer.is_some_and(|status| status == 200) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), ready).await.unwrap();
        served
    }

    async fn try_ask(&self, path: &str) -> Option<u16> {
        let answer = client().get(self.url(path)).send().await;
        answer.ok().map(|answer| answer.status().as_u16())
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.modelway.data_dir().with_extension("log")).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Answer {
        self.modelway.ask(Method::GET, &self.url(path), Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.modelway.ask(Method::POST, &self.url(path), body).await
    }

    /// The error of a request that is the caller's fault.
    async fn refused(&self, path: &str, body: Value) -> String {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, 400, "{answer:#?}");
        answer.body["error"].as_str().unwrap().to_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        kill(self.child.id(), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// `modelway serve` against the registry, with the `uv` that the tests were set up with.
fn command(modelway: &Modelway, registry: &Registry, arguments: &[&str]) -> Command {
    let mut command = modelway.command(&[&["serve"], arguments].concat());
    command
        .env("MLFLOW_TRACKING_URI", &registry.mlflow.url)
        .env("MODELWAY__SERVE__UV", python().with_file_name("uv"))
        .env("MODELWAY__SERVE__DRAIN_MS", "0");
    command
}

/// Whether two nested lists of numbers are the same but for the last digits.
fn close(a: &Value, b: &Value, digits: f64) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b, digits)),
        _ => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= digits,
    }
}

#[tokio::test]
async fn a_production_model_is_served_as_its_users_ask_for_it() {
    let registry = registry().await;
    let arguments = [
        "--model-uri",
        "models:/predictive_maintenance_best/Production",
        "--model-name",
        "predictive_maintenance",
        "--model-version",
        "1.0",
        "--host",
        "0.0.0.0",
    ];
    let served = Served::start(registry, &arguments).await;
    for path in ["/health", "/ready", "/health/live", "/health/ready"] {
        assert_eq!(served.get(path).await.status, 200, "{path}");
    }
    let metadata = json!({"name": "predictive_maintenance", "version": "1.0", "platform": "mlflow", "ready": true});
    assert_eq!(served.get("/v1/models/predictive_maintenance").await.body, metadata);

    let predict = "/v1/models/predictive_maintenance:predict";
    let answer = served.post(predict, json!({"instances": rows()})).await;
    assert_eq!(answer.status, 200, "{answer:#?}");
    let wanted = &registry.answers["linear"];
    assert_eq!(answer.body["predictions"], wanted["predictions"]);
    assert!(close(&answer.body["probabilities"], &wanted["probabilities"], 1e-9), "{answer:#?}");
    assert_eq!(answer.body["model_name"], "predictive_maintenance");
    assert_eq!(answer.body["model_version"], "1.0");
    assert_eq!(answer.body.as_object().unwrap().len(), 4, "{answer:#?}");

    let said = served.refused(predict, json!({"instances": [[1, 2, 3, 4, 5, 6, 7, 8, 9]]})).await;
    assert_eq!(said, "the model wants 10 features, and `input` has 9 in each row");

    let metrics = served.get("/metrics").await.body;
    let metrics = metrics.as_str().unwrap();
    let labels = "model_name=\"predictive_maintenance\",model_version=\"1.0\"";
    for line in [
        format!("model_predictions_total{{{labels}}} 1"),
        format!("model_prediction_latency_seconds_count{{{labels}}} 1"),
        format!("model_prediction_errors_total{{{labels},error_type=\"invalid_input\"}} 1"),
        format!("model_loaded{{{labels}}} 1"),
    ] {
        assert!(metrics.lines().any(|there| there == line), "{line} is not in {metrics}");
    }
    assert!(served.log().contains("resolved by MLflow") && served.log().contains("version=1"), "{}", served.log());
}

#[tokio::test]
async fn requests_are_held_to_the_logged_signature_by_column() {
    let registry = registry().await;
    let served = Served::start(registry, &["models:/named/1", "--model-name", "m"]).await;
    let wanted = &registry.answers["named"];
    let answer = served.post("/v1/models/m:predict", json!({"instances": rows()})).await;
    assert_eq!(answer.body["predictions"], wanted["predictions"], "{answer:#?}");
    assert!(close(&answer.body["probabilities"], &wanted["probabilities"], 1e-9));

    let flat: Vec<Value> = rows().as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap().clone()).collect();
    let matrix = json!({"inputs": [{"name": "x", "datatype": "FP64", "shape": [2, 10], "data": flat}]});
    let answer = served.post("/v2/models/m/infer", matrix).await;
    assert_eq!(answer.body["outputs"][0]["data"], wanted["predictions"], "{answer:#?}");
    let column = |place: usize| {
        json!({"name": format!("sensor_{place}"), "datatype": "FP64", "shape": [2, 1],
                                       "data": [rows()[0][place], rows()[1][place]]})
    };
    let columns: Vec<Value> = (0..10).rev().map(column).collect();
    let answer = served.post("/v2/models/m/infer", json!({"inputs": columns})).await;
    assert_eq!(answer.body["outputs"][0]["data"], wanted["predictions"], "{answer:#?}");

    // The paths of MLflow's own server.
    let names: Vec<String> = (0..10).map(|place| format!("sensor_{place}")).collect();
    let split = json!({"dataframe_split": {"columns": names, "index": [0, 1], "data": rows()}});
    let answer = served.post("/invocations", split).await;
    assert_eq!(answer.body["predictions"], wanted["predictions"], "{answer:#?}");
    assert_eq!(served.get("/ping").await.status, 200);
    assert_eq!(served.get("/version").await.status, 200);

    let said = served.refused("/v1/models/m:predict", json!({"inputs": {"sensor_0": [1.0]}})).await;
    assert!(said.starts_with("9 columns are missing: `sensor_1` (FP64), "), "{said}");
    let text = json!({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 10], "data": vec!["a"; 10]}]});
    let said = served.refused("/v2/models/m/infer", text).await;
    assert!(said.contains("`sensor_0` is BYTES, the model wants FP64"), "{said}");
}

#[tokio::test]
async fn text_beside_numbers_reaches_the_model_as_a_table() {
    let registry = registry().await;
    let served = Served::start(registry, &["models:/mixed/latest", "--model-name", "m"]).await;
    let instances = json!([["south", 3, 70.5], ["north", 4, 65.0]]);
    let answer = served.post("/v1/models/m:predict", json!({"instances": instances})).await;
    assert!(close(&answer.body["predictions"], &registry.answers["mixed"]["predictions"], 1e-9), "{answer:#?}");
    let half = json!({"instances": [{"site": "south", "age": 3.5, "load": 70.5}]});
    let said = served.refused("/v1/models/m:predict", half).await;
    assert!(said.contains("`age`") && said.contains("not a whole number"), "{said}");
    let west = json!({"instances": [["west", 3, 70.5]]});
    let said = served.refused("/v1/models/m:predict", west).await;
    assert!(said.contains("unknown categories ['west']"), "{said}");
}

#[tokio::test]
async fn every_flavour_answers_as_its_own_library() {
    let registry = registry().await;
    let own = format!("serve.models.m.python={}", Mlflow::python().display());
    let run = format!("runs:/{}/boosted", registry.answers["run"].as_str().unwrap());
    for (uri, answer, platform, digits) in [
        ("models:/predictive_maintenance_best@challenger", "forest", "mlflow", 1e-9),
        (run.as_str(), "boosted", "mlflow", 1e-6),
        ("models:/graph/1", "linear", "onnxruntime_onnx", 1e-5),
    ] {
        let served = Served::start(registry, &[uri, "--model-name", "m"]).await;
        let there = served.post("/v1/models/m:predict", json!({"instances": rows()})).await;
        let wanted = &registry.answers[answer];
        assert_eq!(there.body["predictions"], wanted["predictions"], "{uri}: {there:#?}");
        assert!(close(&there.body["probabilities"], &wanted["probabilities"], digits), "{uri}: {there:#?}");
        let about = served.get("/v1/models/m").await.body;
        // The challenger is the second version in the registry.
        let version = if uri.ends_with("challenger") { "2" } else { "1" };
        assert_eq!((&about["platform"], &about["version"]), (&json!(platform), &json!(version)), "{uri}");
        assert!(
            !served.log().contains("modelway-mlflow-"),
            "its users know the folder, not our file: {}",
            served.log()
        );
    }
    // What only MLflow can load, in an environment that has MLflow.
    let served = Served::start(registry, &["models:/echo/1", "--model-name", "m", "--set", &own]).await;
    let given = json!({"instances": [{"x": 1.5, "word": "a"}, {"x": 2, "word": "b"}]});
    let answer = served.post("/v1/models/m:predict", given).await;
    let wanted = json!([{"twice": 3.0, "text": "<a>"}, {"twice": 4.0, "text": "<b>"}]);
    assert_eq!(answer.body["predictions"], wanted, "{answer:#?}");
}

#[tokio::test]
async fn optional_columns_may_be_left_out() {
    let registry = registry().await;
    let own = format!("serve.models.m.python={}", Mlflow::python().display());
    let served = Served::start(registry, &["models:/total/1", "--model-name", "m", "--set", &own]).await;
    let without = json!({"instances": [{"x": 1.5, "z": 1}, {"x": 2, "z": 2}]});
    let answer = served.post("/v1/models/m:predict", without).await;
    let wanted = json!([{"total": 2.5, "columns": "x z"}, {"total": 4.0, "columns": "x z"}]);
    assert_eq!(answer.body["predictions"], wanted, "{answer:#?}");
    let answer = served.post("/v1/models/m:predict", json!({"inputs": {"x": [1.5], "z": [1]}})).await;
    assert_eq!(answer.body["predictions"], json!([wanted[0]]), "{answer:#?}");
    let answer = served.post("/v1/models/m:predict", json!({"instances": [[1.5, 4, 1]]})).await;
    assert_eq!(answer.body["predictions"], json!([{"total": 6.5, "columns": "x y z"}]), "{answer:#?}");
    let said = served.refused("/v1/models/m:predict", json!({"instances": [{"x": 1.5, "y": 1}]})).await;
    assert_eq!(said, "1 column is missing: `z` (FP64)");
    let said = served
        .refused("/v1/models/m:predict", json!({"instances": [{"x": 1, "y": 1, "z": 1}, {"x": 1, "z": 1}]}))
        .await;
    assert!(said.contains("column `y` has no value in row 1"), "{said}");
}

#[tokio::test]
async fn bytes_times_and_parameters_arrive_as_mlflow_gives_them() {
    let registry = registry().await;
    let own = format!("serve.models.m.python={}", Mlflow::python().display());
    let served = Served::start(registry, &["models:/kinds/1", "--model-name", "m", "--set", &own]).await;
    let columns = json!(["x", "data", "at"]);
    let rows = json!([[1.5, "AP8=", "2024-01-31T12:00:00"], [null, "aGk=", "2024-01-31T12:00:00"]]);
    let split = json!({"dataframe_split": {"columns": columns, "data": rows}, "params": {"scale": 2}});
    let answer = served.post("/invocations", split).await;
    let wanted = json!([
        {"said": "1.5 b'\\x00\\xff' 2024-01-31 12:00:00 2.0"},
        {"said": "nan b'hi' 2024-01-31 12:00:00 2.0"},
    ]);
    assert_eq!(answer.body["predictions"], wanted, "{answer:#?}");
    let record = json!({"x": 1, "data": {"b64": "aGk="}, "at": "2024-01-31T13:00:00+01:00"});
    let with = |parameters: Value| json!({"instances": [record], "parameters": parameters});
    let answer = served.post("/v1/models/m:predict", with(json!({"content_type": "pd"}))).await;
    assert_eq!(answer.body["predictions"], json!([{"said": "1.0 b'hi' 2024-01-31 12:00:00 1.0"}]), "{answer:#?}");
    // What MLflow ignores is ignored, and lists and null arrive.
    for parameters in [json!({"scael": 1}), json!({"words": ["a"], "scale": null})] {
        let answer = served.post("/v1/models/m:predict", with(parameters)).await;
        assert_eq!(answer.status, 200, "{answer:#?}");
    }
    for (parameters, words) in [
        (json!({"scale": "hot"}), "scale"),
        (json!({"scale": [1]}), "scale"),
        (json!({"words": "a"}), "parameter `words` is a list, which V2 sends as a string of JSON"),
    ] {
        let said = served.refused("/v1/models/m:predict", with(parameters)).await;
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn what_the_registry_does_not_have_ends_the_server_with_words() {
    let registry = registry().await;
    let modelway = Modelway::new();
    for (uri, words) in [
        ("models:/predictive_maintenence_best/Production", "did you mean `predictive_maintenance_best`?"),
        ("models:/predictive_maintenance_best/Staging", "version 1 in Production"),
    ] {
        let output = command(&modelway, registry, &[uri, "--port", "0"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{uri}: {said}");
    }
}

#[tokio::test]
async fn a_model_of_the_registry_is_deployed_by_its_alias_and_stays_at_the_version_that_it_was() {
    let registry = registry().await;
    let mut modelway = Modelway::new();
    modelway.set("MLFLOW_TRACKING_URI", &registry.mlflow.url);
    modelway.set("MODELWAY__SERVE__UV", python().with_file_name("uv").to_str().unwrap());
    modelway.start(Role::Up).await;
    let api = async |method, path: &str, body| {
        // The server closes connections that are idle for some seconds, so none is used twice.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let url = format!("{}/api/2.0/mlflow/{path}", registry.mlflow.url);
        let answer = client.request(method, url).json(&body).send().await.unwrap();
        let status = answer.status();
        let told: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{told:#}");
        told
    };
    // A second version of the same files, so that both load.
    let name = "predictive_maintenance_best";
    let one = api(Method::GET, &format!("model-versions/get?name={name}&version=1"), Value::Null).await;
    let (source, run) = (&one["model_version"]["source"], &one["model_version"]["run_id"]);
    // Since MLflow 3 the address is that of a logged model.
    let logged = source.as_str().and_then(|source| source.strip_prefix("models:/"));
    let body = json!({"name": name, "source": source, "run_id": run, "model_id": logged});
    let two = api(Method::POST, "model-versions/create", body).await["model_version"]["version"].clone();
    let point = async |version: &Value| {
        let body = json!({"name": name, "alias": "deployed", "version": version});
        api(Method::POST, "registered-models/alias", body).await;
    };
    let get = |who: &str| -> Value { serde_json::from_str(&modelway.succeed(&["get", who, "-o", "json"])).unwrap() };
    let deploy = |source: &str, who: &str| {
        modelway.succeed(&["deploy", source, "--name", who, "--wait-timeout", "600s"]);
    };

    point(&json!("1")).await;
    let alias = format!("models:/{name}@deployed");
    deploy(&alias, "pump");
    let deployed = get("pump");
    assert_eq!(
        (&deployed["model"]["bucket"], &deployed["model"]["version"]),
        (&json!(format!("models:/{name}/1")), &json!("1"))
    );
    let predict = |who: &str| -> Value {
        let body = json!({"instances": rows()}).to_string();
        serde_json::from_str(&modelway.succeed(&["predict", who, "--data", &body, "-o", "json"])).unwrap()
    };
    assert_eq!(predict("pump")["model_version"], "1");
    let told = modelway.succeed(&["deploy", &alias, "--name", "pump"]);
    assert!(told.contains("Nothing that runs has changed"), "{told}");

    point(&two).await;
    modelway.replica_pids().iter().for_each(|pid| kill(*pid, Signal::KILL));
    modelway
        .until_deployment(1, "it is started again", |d| {
            d.status.state == api::State::Active && d.status.replica_status.iter().all(|r| r.restarts > 0)
        })
        .await;
    assert_eq!(get("pump")["model"]["version"], "1", "an alias that moves changes nothing that runs");
    deploy(&alias, "pump");
    assert_eq!((&get("pump")["model"]["version"], &get("pump")["revision"]), (&two, &json!(2)));

    // A version that Modelway's own registry does not have is MLflow's.
    deploy(&format!("models:/{name}/1"), "exact");
    assert_eq!(get("exact")["artifact"], format!("models:/{name}/1"));
    modelway.succeed(&["models", "register", "pumps"]);
    modelway.succeed(&["models", "add-version", "pumps", "v1", "--uri", &alias]);
    let listed = modelway.succeed(&["models", "get", "pumps"]);
    assert!(listed.contains(&format!("models:/{name}/{}", two.as_str().unwrap())), "{listed}");
    deploy("models:/pumps/v1", "own");
    assert_eq!(predict("own")["model_version"], "v1");
    // Over HTTP nobody resolves it before a replica does, and then for ever.
    let body = json!({"name": "raw", "model": {"bucket": alias, "version": "x"}});
    let raw = modelway.ask(Method::POST, &modelway.control("/v1/modelDeployment"), body).await;
    assert_eq!(raw.status, 201, "{raw:#?}");
    let id = raw.body["id"].as_i64().unwrap();
    modelway.until_active(id).await;
    let revisions = modelway.control(&format!("/v1/modelDeployment/{id}/revisions"));
    let pin = modelway.ask(Method::GET, &revisions, Value::Null).await.body["items"][0]["pin"].clone();
    assert_eq!(pin["uri"], format!("models:/{name}/{}", two.as_str().unwrap()));

    let refused = modelway.run(&["deploy", &format!("models:/{name}@nobody"), "--name", "none"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("nobody"), "{said}");
}
