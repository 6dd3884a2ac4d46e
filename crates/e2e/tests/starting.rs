//! Starting twice, on a taken port, on an interrupted or a newer database: said clearly, nothing harmed.

use std::{net::TcpListener, process::Stdio, time::Duration};

use modelway_e2e::{Modelway, Role, kill, until};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::Value;

#[tokio::test]
async fn a_second_up_on_the_same_folder_is_refused_and_harms_nothing() {
    let mut modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 1).await;
    modelway.until_active(id).await;
    let before = modelway.replica_pids();

    let second = modelway.run(&["up", "--gateway-addr", "127.0.0.1:0", "--control-addr", "127.0.0.1:0"]);
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&modelway.pid(Role::Up).to_string()), "it names the holder: {said}");
    assert!(said.contains(modelway.data_dir().to_str().unwrap()), "it names the folder: {said}");

    assert_eq!(modelway.replica_pids(), before);
    modelway.until_predicts("iris").await;
    assert!(modelway.stop(Role::Up).await.success());
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_setting_that_changes_it() {
    let modelway = Modelway::new();
    let _taken = TcpListener::bind(("127.0.0.1", modelway.ports.gateway)).unwrap();
    let output = modelway.run(&["up"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&modelway.ports.gateway.to_string()) && said.contains("--gateway-addr"), "{said}");
}

#[tokio::test]
async fn an_address_beyond_loopback_needs_so_many_words() {
    let modelway = Modelway::new();
    for command in [
        &["up", "--gateway-addr", "0.0.0.0:0"][..],
        &["up", "--control-addr", "0.0.0.0:0"],
        &["up", "--set", "worker.addr=0.0.0.0:0"],
        &["control", "--addr", "0.0.0.0:0"],
        &["gateway", "--addr", "0.0.0.0:0"],
        &["worker", "--addr", "0.0.0.0:0"],
    ] {
        let output = modelway.run(command);
        assert!(!output.status.success(), "{command:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("--allow-unauthenticated"), "{command:?}: {said}");
    }
}

#[tokio::test]
async fn a_start_killed_at_any_moment_leaves_a_folder_that_starts() {
    for patience in [5, 20, 40, 80, 160] {
        let mut modelway = Modelway::new();
        let mut first = modelway.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The moment of the kill is the point, so here time itself is the condition.
        tokio::time::sleep(Duration::from_millis(patience)).await;
        first.kill().unwrap();
        first.wait().unwrap();
        modelway.start(Role::Up).await;
        let list = modelway.ask(Method::GET, &modelway.control("/v1/modelDeployment"), Value::Null).await;
        assert_eq!(list.status, 200, "killed after {patience} ms: {}", modelway.log_of(Role::Up));
        assert!(modelway.stop(Role::Up).await.success());
    }
}

#[tokio::test]
async fn up_ends_within_its_time_and_leaves_nothing_behind() {
    let mut modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 2).await;
    modelway.until_active(id).await;
    let start = std::time::Instant::now();
    assert!(modelway.stop(Role::Up).await.success());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(modelway.replica_pids().is_empty());

    modelway.start(Role::Up).await;
    modelway.until_active(id).await;
    until("the replicas are back", || async { modelway.replica_pids().len() == 2 }).await;
}

#[tokio::test]
async fn a_closed_terminal_ends_what_up_started() {
    let modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 2).await;
    modelway.until_active(id).await;
    kill(modelway.pid(Role::Up), Signal::HUP);
    until("no replica is left", || async { modelway.replica_pids().is_empty() }).await;
}

#[tokio::test]
async fn the_revision_that_served_beside_a_broken_one_serves_again_after_a_restart() {
    let mut modelway = Modelway::up().await;
    let models = modelway.models();
    let id = modelway.deploy("iris", &models.iris("iris"), 1).await;
    modelway.until_active(id).await;
    let broken = models.broken("broken");
    assert!(!modelway.run(&["deploy", broken.to_str().unwrap(), "--name", "iris"]).status.success());
    modelway.until_predicts("iris").await;

    assert!(modelway.stop(Role::Up).await.success());
    modelway.start(Role::Up).await;
    modelway.until_predicts("iris").await;
    modelway
        .until_deployment(id, "it says so", |d| {
            d.status.state == api::State::Degraded && d.status.serving_revision == Some(api::RevisionNumber(1))
        })
        .await;
}
