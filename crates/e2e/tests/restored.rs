//! A database that is empty, or older than what runs: nothing is ended, nothing is mixed up, and it serves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use modelway_e2e::{Modelway, Role, dump_sqlite, restore_sqlite, until};
use reqwest::Method;
use serde_json::{Value, json};

fn database(modelway: &Modelway) -> std::path::PathBuf {
    modelway.data_dir().join("modelway.db")
}

fn remove_database(modelway: &Modelway) {
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", database(modelway).display()));
    }
}

/// The names of the strays, once there are `count`.
async fn strays(modelway: &Modelway, count: usize) -> Vec<String> {
    let names = || {
        let list: Value = serde_json::from_str(&modelway.succeed(&["strays", "-o", "json"])).unwrap();
        let items = list["items"].as_array().unwrap().clone();
        items.into_iter().map(|stray| stray["replica"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until(&format!("{count} strays are told of"), || std::future::ready(names().len() == count)).await;
    names()
}

async fn is_digits(modelway: &Modelway, name: &str) -> bool {
    let answer = modelway.ask(Method::GET, &modelway.gateway(&format!("/v2/models/{name}")), Value::Null).await;
    answer.status == 200 && answer.body["inputs"][0]["shape"].as_array().unwrap().last() == Some(&json!(64))
}

#[tokio::test]
async fn a_database_put_back_to_an_older_copy_serves_what_it_knows_and_what_comes() {
    let mut modelway = Modelway::up().await;
    let models = modelway.models();
    let kept = modelway.deploy("kept", &models.iris("iris"), 1).await;
    modelway.until_active(kept).await;
    let [of_kept] = modelway.replica_pids()[..] else { panic!("one replica") };
    let backup = dump_sqlite(&database(&modelway));

    let forgotten = modelway.deploy("forgotten", &models.iris("other"), 1).await;
    modelway.until_active(forgotten).await;
    let before = modelway.replica_pids();
    assert_eq!(before.len(), 2);
    modelway.kill(Role::Up);
    remove_database(&modelway);
    restore_sqlite(&database(&modelway), &backup);
    modelway.start(Role::Up).await;
    modelway.until_active(kept).await;
    modelway.until_predicts("kept").await;

    let new = modelway.deploy("digits", &models.digits("digits"), 1).await;
    assert_eq!(new, forgotten, "the number is given a second time");
    modelway.until_active(new).await;
    until("the new model is served under its name", || is_digits(&modelway, "digits")).await;
    assert!(is_digits(&modelway, &format!("md-{new}")).await, "the number means the new model");
    let names = strays(&modelway, 1).await;
    assert_eq!(names, [format!("md-{forgotten}-r1-0")]);
    let after = modelway.replica_pids();
    assert!(before.iter().all(|pid| after.contains(pid)) && after.len() == 3, "{before:?}, then {after:?}");
    let events = modelway.succeed(&["events"]);
    assert!(events.contains("was restored from an older copy"), "{events}");

    let scale = modelway.control(&format!("/v1/modelDeployment/{kept}/scale"));
    assert_eq!(modelway.ask(Method::PUT, &scale, json!({"replicas": 2})).await.status, 200);
    modelway.until_deployment(kept, "two replicas", |d| d.status.ready_replicas == 2).await;
    modelway.succeed(&["strays", "--end", &names[0], "--yes"]);
    until("the stray is gone, and nothing else", || async {
        let now = modelway.replica_pids();
        now.len() == 3 && now.contains(&of_kept)
    })
    .await;
    assert!(modelway.stop(Role::Up).await.success());
    assert_eq!(modelway.replica_pids(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_worker_on_an_empty_database_leaves_what_runs_alone() {
    let mut modelway = Modelway::up().await;
    let models = modelway.models();
    let id = modelway.deploy("iris", &models.iris("iris"), 2).await;
    modelway.until_active(id).await;
    let before = modelway.replica_pids();
    modelway.kill(Role::Up);
    remove_database(&modelway);
    modelway.start(Role::Up).await;
    let names = strays(&modelway, 2).await;

    let digits = modelway.deploy("digits", &models.digits("digits"), 1).await;
    assert_eq!(digits, id, "an empty database gives the same numbers");
    modelway.until_active(digits).await;
    until("the new model is served", || is_digits(&modelway, "md-1")).await;
    assert!(modelway.stop(Role::Up).await.success());
    assert_eq!(modelway.replica_pids(), before, "`up` ends what is its own");
    let said = modelway.log_of(Role::Up);
    assert!(names.iter().all(|name| said.contains(name)), "it says what runs on: {said}");

    modelway.start(Role::Up).await;
    strays(&modelway, 2).await;
    let refused = modelway.run(&["strays", "--end", "md-7-r1-0", "--yes"]);
    assert_eq!(refused.status.code(), Some(5), "{refused:#?}");
    modelway.succeed(&["strays", "--end-all", "--yes"]);
    until("they are gone", || std::future::ready(before.iter().all(|pid| !modelway.replica_pids().contains(pid))))
        .await;
}

/// What 0.1.0 wrote of a replica: no epoch, and a fence that is a number alone.
#[tokio::test]
async fn replicas_of_0_1_0_are_taken_over() {
    let mut modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 2).await;
    modelway.until_active(id).await;
    let before = modelway.replica_pids();
    modelway.kill(Role::Up);
    let replicas = modelway.data_dir().join("replicas");
    for n in 0..2 {
        let file = replicas.join(format!("md-{id}-r1-{n}/replica.json"));
        let mut record: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert!(record.as_object_mut().unwrap().remove("origin").is_some());
        std::fs::write(&file, record.to_string()).unwrap();
    }
    std::fs::write(replicas.join(format!("md-{id}.lock")), "09223372036854775807\n").unwrap();
    modelway.start(Role::Up).await;
    modelway.until_predicts("iris").await;
    let scale = modelway.control(&format!("/v1/modelDeployment/{id}/scale"));
    assert_eq!(modelway.ask(Method::PUT, &scale, json!({"replicas": 3})).await.status, 200);
    modelway.until_deployment(id, "three replicas", |d| d.status.ready_replicas == 3).await;
    let after = modelway.replica_pids();
    assert!(before.iter().all(|pid| after.contains(pid)), "{before:?}, then {after:?}");
    assert_eq!(strays(&modelway, 0).await, Vec::<String>::new());
    assert!(modelway.stop(Role::Up).await.success());
    assert_eq!(modelway.replica_pids(), Vec::<u32>::new(), "they are its own now");
}
