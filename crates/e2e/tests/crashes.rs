//! Whatever is killed, what was served is served, and nothing is doubled or left over.

use modelway_e2e::{Load, Modelway, Role, kill, python, until, until_some};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

#[tokio::test]
async fn up_killed_under_load_and_started_again_serves_everything_without_a_command() {
    let mut modelway = Modelway::up().await;
    let models = modelway.models();
    let iris = modelway.deploy("iris", &models.iris("iris"), 2).await;
    let digits = modelway.deploy("digits", &models.digits("digits"), 1).await;
    modelway.until_active(iris).await;
    modelway.until_active(digits).await;
    modelway.until_predicts("iris").await;
    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 4);
    load.answers(50).await;
    let before = modelway.replica_pids();
    assert_eq!(before.len(), 3);

    modelway.kill(Role::Up);
    load.stop().await;
    assert_eq!(modelway.replica_pids(), before, "the replicas outlive what started them");

    modelway.start(Role::Up).await;
    modelway.until_predicts("iris").await;
    modelway.until_active(iris).await;
    modelway.until_active(digits).await;
    let digits_metadata = modelway.gateway("/v2/models/digits");
    until("digits answers", || async { modelway.ask(Method::GET, &digits_metadata, Value::Null).await.status == 200 })
        .await;
    assert_eq!(modelway.replica_pids(), before, "the same replicas were adopted, none was doubled");

    assert!(modelway.stop(Role::Up).await.success());
    assert_eq!(modelway.replica_pids(), Vec::<u32>::new(), "`up` ends everything that it started");
}

#[tokio::test]
async fn a_killed_replica_costs_no_request_and_is_started_again() {
    let modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 2).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 4);
    load.answers(100).await;

    for _ in 0..3 {
        let victim = modelway.replica_pids()[0];
        kill(victim, Signal::KILL);
        until("two replicas run again", || async {
            let pids = modelway.replica_pids();
            pids.len() == 2 && !pids.contains(&victim)
        })
        .await;
        modelway.until_active(id).await;
        load.answers(100).await;
    }
    load.stop().await.assert_flawless();
    let replicas = modelway.deployment(id).await.status.replica_status;
    assert_eq!(replicas.len(), 2);
    let events = modelway.succeed(&["events", "iris"]);
    let told = events.lines().filter(|line| line.contains("ended by itself") && line.contains("signal 9")).count();
    assert_eq!(told, 3, "each end is an event: {events}");
}

#[tokio::test]
async fn a_python_model_comes_back_with_its_process_and_leaves_none_behind() {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__SERVE__PYTHON", python().to_str().unwrap());
    modelway.start(Role::Up).await;
    let id = modelway.deploy("doubling", &modelway.models().doubling("doubling"), 1).await;
    modelway.until_active(id).await;
    let url = modelway.gateway("/v1/models/doubling:predict");
    let doubles = || async {
        let answer = modelway.ask(Method::POST, &url, json!({"instances": [1.5, 2]})).await;
        (answer.status == 200).then(|| assert_eq!(answer.body["predictions"], json!([3.0, 4.0]), "{answer:#?}"))
    };
    until_some("it doubles", doubles).await;
    let alone = |pids: Vec<u32>| {
        assert_eq!(pids.len(), 1, "{pids:?}");
        pids[0]
    };

    let (replica, worker) = (alone(modelway.replica_pids()), alone(modelway.python_pids()));
    kill(worker, Signal::KILL);
    until("another process runs the model", || async { !modelway.python_pids().iter().all(|pid| *pid == worker) })
        .await;
    until_some("it doubles again", doubles).await;
    assert_eq!(alone(modelway.replica_pids()), replica, "the replica outlives its model's process");

    let worker = alone(modelway.python_pids());
    kill(replica, Signal::KILL);
    until("its process ends with the replica", || async { !modelway.python_pids().contains(&worker) }).await;
    until_some("a new replica doubles", doubles).await;
    assert_ne!(alone(modelway.replica_pids()), replica);

    assert!(modelway.stop(Role::Up).await.success());
    assert_eq!(modelway.python_pids(), Vec::<u32>::new());
}

#[tokio::test]
async fn predictions_go_on_without_control_plane_and_worker_also_through_a_restarted_gateway() {
    let mut modelway = Modelway::apart().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 2).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;

    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 2);
    load.answers(20).await;
    modelway.kill(Role::Control);
    modelway.kill(Role::Worker);
    load.answers(200).await;
    load.stop().await.assert_flawless();

    modelway.kill(Role::Gateway);
    modelway.start(Role::Gateway).await;
    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 2);
    load.answers(200).await;
    load.stop().await.assert_flawless();

    // They come back, adopt what runs, and can still change it.
    let before = modelway.replica_pids();
    modelway.start(Role::Control).await;
    modelway.start(Role::Worker).await;
    modelway.until_active(id).await;
    assert_eq!(modelway.replica_pids(), before);
    let scale = modelway.control(&format!("/v1/modelDeployment/{id}/scale"));
    assert_eq!(modelway.ask(Method::PUT, &scale, json!({"replicas": 1})).await.status, 200);
    until("one replica is left", || async { modelway.replica_pids().len() == 1 }).await;
    modelway.until_predicts("iris").await;
}

#[tokio::test]
async fn a_worker_told_to_end_leaves_its_replicas_and_another_takes_over() {
    let mut modelway = Modelway::apart().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 1).await;
    modelway.until_active(id).await;
    let before = modelway.replica_pids();
    assert!(modelway.stop(Role::Worker).await.success());
    assert_eq!(modelway.replica_pids(), before);

    modelway.start(Role::Worker).await;
    kill(before[0], Signal::KILL);
    until_some("it is replaced", || async { modelway.replica_pids().into_iter().find(|pid| !before.contains(pid)) })
        .await;
    modelway.until_active(id).await;
}

#[tokio::test]
async fn two_workers_share_the_work_and_double_nothing() {
    let mut modelway = Modelway::apart().await;
    let mut second = modelway.command(&["worker"]).spawn().unwrap();
    let models = modelway.models();
    let folder = models.iris("iris");
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(modelway.deploy(&format!("iris-{n}"), &folder, 1).await);
    }
    for id in &ids {
        modelway.until_active(*id).await;
    }
    assert_eq!(modelway.replica_pids().len(), 6);

    modelway.kill(Role::Worker);
    for pid in modelway.replica_pids().into_iter().take(3) {
        kill(pid, Signal::KILL);
    }
    until("the other worker replaces them", || async { modelway.replica_pids().len() == 6 }).await;
    for id in &ids {
        modelway.until_active(*id).await;
    }
    assert_eq!(modelway.replica_pids().len(), 6);
    second.kill().unwrap();
    second.wait().unwrap();
}

#[tokio::test]
async fn a_rolling_change_under_load_costs_no_request() {
    let modelway = Modelway::up().await;
    let models = modelway.models();
    let id = modelway.deploy("iris", &models.iris("iris"), 2).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 4);
    load.answers(50).await;

    let url = modelway.control(&format!("/v1/modelDeployment/{id}"));
    for round in 1..=3 {
        let old = modelway.replica_pids();
        let change = json!({"env": {"ROUND": round.to_string()}});
        assert_eq!(modelway.ask(Method::PATCH, &url, change).await.status, 200);
        let now = modelway.until_active(id).await;
        assert_eq!(now.revision.0, round + 1);
        until("the old replicas are gone", || async {
            let pids = modelway.replica_pids();
            pids.len() == 2 && old.iter().all(|pid| !pids.contains(pid))
        })
        .await;
    }
    load.answers(50).await;
    load.stop().await.assert_flawless();
}
