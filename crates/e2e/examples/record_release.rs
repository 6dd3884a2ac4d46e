//! Records the fixtures of a version that is about to be released, with the binary of this checkout:
//! `cargo run -p modelway-e2e --example record_release -- 0.2.0`. Run it before the version number changes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "it fails by panicking, and reads its arguments")]

use std::process::Command;

use modelway_e2e::{Exchange, Modelway, Postgres, Release, Role, dump_sqlite, until};
use reqwest::Method;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/v1/modelDeployment";
const MODELS: &str = "/v1/registeredModels";

#[tokio::main]
async fn main() {
    let version = std::env::args().nth(1).expect("usage: record_release VERSION");
    let release = Release::of(&version);

    let head = Command::new("git").args(["rev-parse", "HEAD"]).output().unwrap();
    assert!(head.status.success(), "{head:#?}");

    let mut modelway = Modelway::new();
    release.write("commit", &modelway, std::str::from_utf8(&head.stdout).unwrap());
    let exchanges = converse(&mut modelway).await;
    release.write("exchanges.jsonl", &modelway, &exchanges);
    let document = modelway.ask(Method::GET, &modelway.control("/openapi.json"), Value::Null).await.body;
    release.write("openapi.json", &modelway, &format!("{document:#}\n"));
    assert!(modelway.stop(Role::Up).await.success());
    release.write("sqlite.sql", &modelway, &dump_sqlite(&modelway.data_dir().join("modelway.db")));
    let table = std::fs::read_to_string(modelway.data_dir().join("gateway/routes.json")).unwrap();
    release.write("routes.json", &modelway, &table);

    let postgres = Postgres::start();
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__STORE__URL", postgres.url());
    converse(&mut modelway).await;
    assert!(modelway.stop(Role::Up).await.success());
    release.write("postgres.sql", &modelway, &postgres.dump());
}

/// Starts `modelway up`, asks for everything, and leaves a deployment of each kind that a database can hold.
async fn converse(modelway: &mut Modelway) -> String {
    let iris = modelway.models().iris("iris");
    let iris = iris.to_str().unwrap();
    let broken = modelway.models().broken("broken");
    modelway.start(Role::Up).await;
    let mut lines = String::new();
    for mut exchange in requests(iris, broken.to_str().unwrap()) {
        let answer = exchange.send(modelway).await;
        exchange.0["answer"] = answer;
        lines += &format!("{}\n", exchange.0);
    }
    modelway.until_predicts("iris").await;
    let saved = modelway.data_dir().join("gateway/routes.json");
    until("the gateway has saved its table", || async {
        std::fs::read_to_string(&saved).is_ok_and(|table| table.contains("iris"))
    })
    .await;
    lines
}

fn requests(iris: &str, broken: &str) -> Vec<Exchange> {
    let get = |path: &str| Exchange::new("GET", path, Value::Null);
    let post = |path: &str, body: Value| Exchange::new("POST", path, body);
    let one = |id: u32| format!("{DEPLOYMENTS}/{id}");
    let versions = format!("{MODELS}/flowers/versions");
    vec![
        get("/health/live"),
        get("/health/ready"),
        get(DEPLOYMENTS),
        // The registry.
        post(MODELS, json!({"name": "flowers", "description": "iris", "labels": {"team": "botany"}})),
        post(MODELS, json!({"name": "flowers"})),
        post(MODELS, json!({"name": "Not a name", "colour": "red"})),
        get(&format!("{MODELS}/flowers")),
        post(&versions, json!({"version": "1", "uri": iris, "format": "onnx"})),
        post(&versions, json!({"version": "2", "uri": iris})),
        post(&versions, json!({"version": "1", "uri": iris})),
        get(&versions),
        get(&format!("{versions}/1")),
        Exchange::new("DELETE", &format!("{versions}/2"), Value::Null),
        get(MODELS),
        // 1: by path, everything said.
        post(
            DEPLOYMENTS,
            json!({
                "name": "iris",
                "type": "cpu",
                "labels": {"team": "botany"},
                "model": {"version": "v1", "type": "single", "bucket": iris},
                "replicas": 1,
                "request_res": {"cpu": "50m", "memory": "64Mi"},
                "limit_res": {"cpu": "1", "memory": "1Gi"},
                "env": {"COLOUR": "red"},
                "request_timeout_ms": 20_000,
                "idempotent": false,
                "log_payloads": "all"
            }),
        ),
        // 2: by name. 3: idle. 4: fails.
        post(DEPLOYMENTS, json!({"name": "by-name", "model": {"name": "flowers", "version": "1"}})),
        post(DEPLOYMENTS, json!({"model": {"version": "1", "bucket": iris}, "replicas": 0}))
            .header("idempotency-key", "three"),
        post(DEPLOYMENTS, json!({"model": {"version": "1", "bucket": iris}, "replicas": 0}))
            .header("idempotency-key", "three"),
        post(DEPLOYMENTS, json!({"name": "broken", "model": {"version": "1", "bucket": broken}})),
        // Refusals.
        post(DEPLOYMENTS, json!({"name": "iris", "model": {"version": "1", "bucket": iris}})),
        post(DEPLOYMENTS, json!({"name": "UPPER CASE", "replicas": -1, "colour": "red"})),
        post(DEPLOYMENTS, json!({"model": {"name": "nobody", "version": "1"}})),
        get(&one(99)),
        get("/v1/modelDeployments"),
        Exchange::new("DELETE", DEPLOYMENTS, Value::Null),
        get(&format!("{DEPLOYMENTS}?limit=0")),
        // Reading.
        get(&one(1)).once(&one(1), json!({"status": "active", "ready_replicas": 1})),
        get(&one(2)).once(&one(2), json!({"status": "active", "ready_replicas": 1})),
        get(&one(3)).once(&one(3), json!({"status": "idle"})),
        get(&one(4)).once(&one(4), json!({"status": "failed"})),
        get(&format!("{DEPLOYMENTS}?limit=2")),
        get(&format!("{DEPLOYMENTS}?name=iris")),
        get(&format!("{DEPLOYMENTS}?status=idle")),
        // Changing.
        Exchange::new("PATCH", &one(1), json!({"labels": {"team": "garden"}})).header("if-match", "@ETAG@"),
        Exchange::new("PATCH", &one(1), json!({"labels": {"team": "nobody"}})).header("if-match", "\"0\""),
        Exchange::new("PATCH", &one(1), json!({"env": {"COLOUR": "blue"}})),
        get(&format!("{}/revisions", one(1)))
            .once(&one(1), json!({"status": "active", "revision": 2, "serving_revision": 2})),
        Exchange::new("PUT", &format!("{}/scale", one(2)), json!({"replicas": 2})),
        Exchange::new("PUT", &format!("{}/scale", one(2)), json!({"replicas": 2000})),
        Exchange::new(
            "PUT",
            &one(3),
            json!({"name": "idle", "model": {"version": "2", "bucket": iris}, "replicas": 0}),
        ),
        get(&format!("{}/events?limit=1", one(1))),
        Exchange::new("DELETE", &format!("{versions}/1"), Value::Null),
        // 5: gone.
        post(DEPLOYMENTS, json!({"name": "gone", "model": {"version": "1", "bucket": iris}, "replicas": 0})),
        Exchange::new("DELETE", &one(5), Value::Null),
        get(&one(2)).once(&one(2), json!({"status": "active", "ready_replicas": 2})),
    ]
}
