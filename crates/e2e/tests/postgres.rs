//! Everything over PostgreSQL: one process, several of each role, and the server itself gone for a while.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use modelway_e2e::{Load, Modelway, Postgres, Role, free_port, kill, until};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

/// A folder and ports; what is started there shares `postgres`.
fn over(postgres: &Postgres) -> Modelway {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__STORE__URL", postgres.url());
    modelway
}

/// A second process of a role that runs already.
struct Second(Child);

impl Second {
    fn start(modelway: &Modelway, role: &str, control_port: u16) -> Self {
        let mut command = modelway.command(&[role]);
        command.env("MODELWAY__CONTROL__ADDR", format!("127.0.0.1:{control_port}"));
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until_answers(modelway: &Modelway, url: &str) {
    // Nobody may listen there yet.
    until("the port listens", || async { modelway_e2e::client().get(url).send().await.is_ok() }).await;
    until(&format!("{url} answers"), || async { modelway.ask(Method::GET, url, Value::Null).await.status == 200 })
        .await;
}

/// Waits until a deployment has `wanted` processes, no more, and all of them serve.
async fn until_settled(modelway: &Modelway, id: i64, wanted: usize) {
    modelway.until_active(id).await;
    // A process that was killed is there for another moment, and its status for longer.
    let settled = || async {
        let status = modelway.deployment(id).await.status;
        let replicas = (modelway.replica_pids().len(), status.replica_status.len());
        assert!(replicas.0 <= wanted, "nothing is doubled: {} processes", replicas.0);
        status.state == api::State::Active && replicas == (wanted, wanted)
    };
    until("as many replicas run as are wanted, and no others", settled).await;
}

#[tokio::test]
async fn up_keeps_everything_in_postgresql_and_finds_it_again() {
    let postgres = Postgres::start();
    let mut modelway = over(&postgres);
    modelway.start(Role::Up).await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 1).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    assert!(!modelway.data_dir().join("modelway.db").exists(), "there is no second database");

    assert!(modelway.stop(Role::Up).await.success());
    assert_eq!(modelway.replica_pids(), Vec::<u32>::new());
    modelway.start(Role::Up).await;
    until_settled(&modelway, id, 1).await;
    modelway.until_predicts("iris").await;
}

#[tokio::test]
async fn two_of_each_share_a_postgresql_and_either_can_be_killed() {
    let postgres = Postgres::start();
    let mut modelway = over(&postgres);
    modelway.start_apart().await;
    let port = free_port();
    let at_second = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let mut control = Second::start(&modelway, "control", port);
    let _worker = Second::start(&modelway, "worker", port);
    until_answers(&modelway, &at_second("/health/ready")).await;

    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 2).await;
    modelway.until_active(id).await;
    let seen = modelway.ask(Method::GET, &at_second(&format!("/v1/modelDeployment/{id}")), Value::Null).await;
    assert_eq!((&seen.body["status"], &seen.body["ready_replicas"]), (&json!("active"), &json!(2)), "{seen:#?}");
    modelway.until_predicts("iris").await;

    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 2);
    load.answers(50).await;
    control.kill();
    modelway.kill(Role::Worker);
    kill(modelway.replica_pids()[0], Signal::KILL);
    until_settled(&modelway, id, 2).await;
    load.answers(100).await;

    // The one that the gateway watches goes; what is changed through the other comes when it is back.
    let mut control = Second::start(&modelway, "control", port);
    until_answers(&modelway, &at_second("/health/ready")).await;
    modelway.kill(Role::Control);
    let scale = at_second(&format!("/v1/modelDeployment/{id}/scale"));
    assert_eq!(modelway.ask(Method::PUT, &scale, json!({"replicas": 3})).await.status, 200);
    modelway.start(Role::Worker).await;
    modelway.start(Role::Control).await;
    until_settled(&modelway, id, 3).await;
    load.answers(100).await;
    load.stop().await.assert_flawless();

    modelway.kill(Role::Gateway);
    control.kill();
    modelway.start(Role::Gateway).await;
    modelway.until_predicts("iris").await;
    let url = modelway.control(&format!("/v1/modelDeployment/{id}"));
    assert_eq!(modelway.ask(Method::DELETE, &url, Value::Null).await.status, 202);
    until("it is gone", || async { modelway.ask(Method::GET, &url, Value::Null).await.status == 404 }).await;
    assert_eq!(modelway.replica_pids(), Vec::<u32>::new());
}

#[tokio::test]
async fn predictions_go_on_while_postgresql_is_gone_and_the_rest_recovers() {
    let postgres = Postgres::start();
    let mut modelway = over(&postgres);
    modelway.start_apart().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 2).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 2);
    load.answers(50).await;

    postgres.halt();
    let deployment = modelway.control(&format!("/v1/modelDeployment/{id}"));
    let asked = Instant::now();
    let refused = modelway.ask(Method::GET, &deployment, Value::Null).await;
    assert!(asked.elapsed() < Duration::from_secs(6), "nobody is kept waiting for it: {:?}", asked.elapsed());
    assert_eq!((refused.status.as_u16(), &refused.body["code"]), (503, &json!("database_unavailable")), "{refused:#?}");
    let refused = modelway.ask(Method::PATCH, &deployment, json!({"labels": {"a": "b"}})).await;
    assert_eq!(refused.status, 503, "{refused:#?}");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(modelway.ask(Method::GET, &modelway.control("/health/live"), Value::Null).await.status, 200);
    let victim = modelway.replica_pids()[0];
    kill(victim, Signal::KILL);
    load.answers(200).await;

    postgres.resume();
    until_answers(&modelway, &modelway.control("/health/ready")).await;
    until_settled(&modelway, id, 2).await;
    assert!(!modelway.replica_pids().contains(&victim));
    let scale = format!("{deployment}/scale");
    assert_eq!(modelway.ask(Method::PUT, &scale, json!({"replicas": 3})).await.status, 200);
    until_settled(&modelway, id, 3).await;
    load.answers(50).await;
    load.stop().await.assert_flawless();
}
