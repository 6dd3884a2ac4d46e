//! Two workers of two placements, each with a data directory of its own, on one database.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
};

use modelway_e2e::{Modelway, Role, until};
use reqwest::Method;
use serde_json::{Value, json};

/// A worker beside the one that [`Modelway`] knows. Its replicas end with that one's.
struct Worker(Child);

impl Worker {
    fn start(modelway: &Modelway, placement: &str) -> Self {
        let folder = modelway.data_dir().join(placement);
        let mut command: Command = modelway.command(&["worker", "--placement", placement]);
        command.env("MODELWAY__DATA_DIR", folder).env("MODELWAY__STORE__URL", database(modelway));
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn database(modelway: &Modelway) -> String {
    format!("sqlite://{}/modelway.db", modelway.data_dir().display())
}

async fn shown(modelway: &Modelway, name: &str) -> Value {
    let url = modelway.control(&format!("/v1/modelDeployment?name={name}"));
    modelway.ask(Method::GET, &url, Value::Null).await.body["items"][0].clone()
}

#[tokio::test]
async fn two_placements_share_a_database_and_touch_nothing_of_each_other() {
    let mut modelway = Modelway::apart().await;
    let model = modelway.models().iris("iris");
    let near = modelway.deploy("near", &model, 1).await;
    modelway.until_active(near).await;
    let local: BTreeSet<_> = modelway.replica_pids().into_iter().collect();

    let path = model.to_str().unwrap();
    modelway.succeed(&["deploy", path, "--name", "far", "--placement", "east", "--no-wait"]);
    let waiting = shown(&modelway, "far").await;
    assert_eq!((&waiting["status"], &waiting["error"]["code"]), (&json!("pending"), &json!("no_worker")), "{waiting}");
    let message = waiting["error"]["message"].as_str().unwrap();
    assert!(message.contains("`east`") && message.contains("served are `local`"), "{message}");
    let list = modelway.succeed(&["list"]);
    assert!(list.contains("PLACEMENT") && list.contains("east"), "{list}");
    let doctor = String::from_utf8(modelway.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("no worker serves east"), "{doctor}");

    let east = Worker::start(&modelway, "east");
    modelway.until_active(waiting["id"].as_i64().unwrap()).await;
    modelway.until_predicts("far").await;
    modelway.until_predicts("near").await;
    assert!(modelway.data_dir().join("east/replicas").exists(), "it runs where its worker runs");
    assert!(modelway.succeed(&["logs", "far"]).contains("ready"), "its worker has its log");

    // The other worker is killed and comes back: it takes its own replicas up again, and no other.
    let all: BTreeSet<_> = modelway.replica_pids().into_iter().collect();
    assert_eq!((local.len(), all.len()), (1, 2));
    modelway.kill(Role::Worker);
    modelway.start(Role::Worker).await;
    modelway.succeed(&["scale", "near", "2", "--wait"]);
    let now: BTreeSet<_> = modelway.replica_pids().into_iter().collect();
    assert!(now.is_superset(&all) && now.len() == 3, "{all:?} became {now:?}");
    let strays = modelway.ask(Method::GET, &modelway.control("/v1/strays"), Value::Null).await;
    assert_eq!(strays.body["items"], json!([]));

    let moved = modelway.run(&["deploy", path, "--name", "far", "--placement", "local"]);
    let words = String::from_utf8(moved.stderr).unwrap();
    assert!(!moved.status.success() && words.contains("placed in `east`"), "{words}");

    modelway.succeed(&["delete", "far", "near", "--yes", "--wait"]);
    until("all replicas to end", || async { modelway.replica_pids().is_empty() }).await;
    drop(east);
}
