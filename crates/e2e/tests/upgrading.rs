//! The binary of a released version beside this one: what `docs/stability.md` says of mixed versions, and an upgrade
//! under load. Building the released one takes minutes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{fs, process::Command};

use modelway_e2e::{Load, Modelway, Postgres, RELEASED, Release, Role, python, until};
use reqwest::Method;
use serde_json::{Value, json};

/// Replaces what the endpoint of the first deployment requires of gateways, as a later version's control plane will.
const REQUIRE: &str = r#"
import json, sqlite3, sys
sql = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
sql.execute("BEGIN IMMEDIATE")
sql.execute("UPDATE counter SET value = value + 1 WHERE name = 'route'")
version = sql.execute("SELECT value FROM counter WHERE name = 'route'").fetchone()[0]
policy = json.loads(sql.execute("SELECT policy FROM route WHERE deployment = 1").fetchone()[0])
policy["requires"] = json.loads(sys.argv[2])
sql.execute("UPDATE route SET policy = ?, policy_version = ?, version = ? WHERE deployment = 1", (json.dumps(policy), version, version))
sql.execute("COMMIT")
"#;

fn require(modelway: &Modelway, capabilities: &str) {
    let file = modelway.data_dir().join("modelway.db");
    let output = Command::new(python()).args(["-c", REQUIRE]).arg(file).arg(capabilities).output().unwrap();
    assert!(output.status.success(), "{output:#?}");
}

async fn predicts(modelway: &Modelway, name: &str) -> (u16, Value) {
    let answer = modelway.ask(Method::POST, &modelway.infer_url(name), modelway.iris_body()).await;
    (answer.status.as_u16(), answer.body)
}

async fn scale(modelway: &Modelway, id: i64, replicas: u32) {
    let url = modelway.control(&format!("/v1/modelDeployment/{id}/scale"));
    let scaled = modelway.ask(Method::PUT, &url, json!({ "replicas": replicas })).await;
    assert_eq!(scaled.status, 200, "{scaled:#?}");
    modelway
        .until_deployment(id, "all replicas are ready, and no others run", |d| {
            d.status.ready_replicas == replicas && d.status.replica_status.len() == replicas as usize
        })
        .await;
}

/// Wants another model of a deployment.
async fn replace(modelway: &Modelway, id: i64, model: &std::path::Path) {
    let url = modelway.control(&format!("/v1/modelDeployment/{id}"));
    let (bucket, prefix) = (model.parent().unwrap(), model.file_name().unwrap().to_str());
    let model = json!({"version": "2", "bucket": bucket, "prefix": prefix});
    let changed = modelway.ask(Method::PATCH, &url, json!({ "model": model })).await;
    assert_eq!(changed.status, 200, "{changed:#?}");
}

async fn until_gone(modelway: &Modelway, name: &str) {
    until(&format!("{name} is not known"), || async { predicts(modelway, name).await.0 == 404 }).await;
}

#[tokio::test]
#[ignore = "make test-long runs it"]
async fn long_a_gateway_of_a_released_version_serves_what_a_new_control_plane_tells_it() {
    for version in RELEASED {
        let mut modelway = Modelway::new();
        modelway.start(Role::Control).await;
        modelway.start(Role::Worker).await;
        modelway.run_binary(Some(Release::of(version).binary()));
        modelway.start(Role::Gateway).await;
        let iris = modelway.models().iris("iris");
        let id = modelway.deploy("iris", &iris, 1).await;
        modelway.until_active(id).await;
        modelway.until_predicts("iris").await;

        let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 2);
        load.answers(50).await;
        let other = modelway.deploy("other", &iris, 1).await;
        modelway.until_predicts("other").await;
        scale(&modelway, id, 2).await;
        replace(&modelway, id, &modelway.models().iris("newer")).await;
        modelway.until_active(id).await;
        until("the new revision answers", || async { predicts(&modelway, "iris").await.1["model_version"] == "2" })
            .await;
        let url = modelway.control(&format!("/v1/modelDeployment/{other}"));
        assert!(modelway.ask(Method::DELETE, &url, Value::Null).await.status.is_success());
        until_gone(&modelway, "other").await;
        load.answers(50).await;
        load.stop().await.assert_flawless();

        require(&modelway, r#"["keys"]"#);
        let refused = || async {
            let (status, body) = predicts(&modelway, "iris").await;
            status == 503 && body.to_string().contains("requires `keys`")
        };
        until("what the gateway lacks a capability for is refused", refused).await;
        require(&modelway, "[]");
        modelway.until_predicts("iris").await;

        // What it saved is what it starts from.
        let saved = modelway.data_dir().join("gateway/routes.json");
        until("the last change is saved", || async { !fs::read_to_string(&saved).unwrap().contains("requires") }).await;
        modelway.kill(Role::Control);
        modelway.kill(Role::Gateway);
        modelway.start(Role::Gateway).await;
        modelway.until_predicts("iris").await;
    }
}

#[tokio::test]
#[ignore = "make test-long runs it"]
async fn long_a_new_gateway_serves_its_last_table_until_the_control_plane_is_new_too() {
    for version in RELEASED {
        let mut modelway = Modelway::new();
        modelway.run_binary(Some(Release::of(version).binary()));
        modelway.start_apart().await;
        let iris = modelway.models().iris("iris");
        let id = modelway.deploy("iris", &iris, 1).await;
        modelway.until_active(id).await;
        modelway.until_predicts("iris").await;
        assert!(modelway.stop(Role::Gateway).await.success());

        modelway.run_binary(None);
        modelway.start(Role::Gateway).await;
        modelway.until_predicts("iris").await;
        until("the gateway says what to upgrade", || async {
            modelway.log_of(Role::Gateway).contains("upgrade the control plane")
        })
        .await;
        for role in [Role::Control, Role::Worker] {
            assert!(modelway.stop(role).await.success());
            modelway.start(role).await;
        }
        let other = modelway.deploy("other", &iris, 1).await;
        modelway.until_active(other).await;
        modelway.until_predicts("other").await;
        modelway.until_predicts("iris").await;
    }
}

/// A released version's control plane and worker run on while a new control plane brings their database up to date. One
/// of them that starts later is refused.
async fn share_a_database(version: &str, settings: &[(&str, &str)]) {
    let old = Release::of(version);
    let mut modelway = Modelway::new();
    // Has the database's place in common with the first, and ports of its own.
    let mut newer = Modelway::new();
    let place = format!("sqlite://{}", modelway.data_dir().join("modelway.db").display());
    for it in [&mut modelway, &mut newer] {
        it.set("MODELWAY__STORE__URL", &place);
        settings.iter().for_each(|(name, value)| it.set(name, value));
    }
    modelway.run_binary(Some(old.binary()));
    modelway.start_apart().await;
    let models = modelway.models();
    let id = modelway.deploy("iris", &models.iris("iris"), 1).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let before = modelway.replica_pids();
    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 2);
    load.answers(20).await;

    newer.start(Role::Control).await;
    // Each sees the other's changes, and the old worker carries them out.
    let other = newer.deploy("other", &models.iris("other"), 1).await;
    modelway.until_active(other).await;
    modelway.until_predicts("other").await;
    scale(&modelway, id, 2).await;
    newer.until_deployment(id, "two replicas", |d| d.status.ready_replicas == 2).await;
    replace(&newer, other, &models.iris("newer")).await;
    newer.until_active(other).await;
    until("the new revision answers", || async { predicts(&modelway, "other").await.1["model_version"] == "2" }).await;
    assert!(before.iter().all(|pid| modelway.replica_pids().contains(pid)), "what served was left alone");
    load.answers(20).await;
    load.stop().await.assert_flawless();

    for role in [Role::Worker, Role::Control] {
        modelway.kill(role);
        let refused = modelway.run(&[if role == Role::Worker { "worker" } else { "control" }]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{role:?}: {said}");
        for part in ["newer than this Modelway knows", "install the newer Modelway", "nothing was changed"] {
            assert!(said.contains(part), "{role:?}: {said}");
        }
    }
    modelway.until_predicts("iris").await;
    modelway.run_binary(None);
    modelway.start(Role::Worker).await;
    scale(&newer, id, 3).await;
    assert!(before.iter().all(|pid| modelway.replica_pids().contains(pid)), "the new worker adopted what ran");
}

#[tokio::test]
#[ignore = "make test-long runs it"]
async fn long_released_processes_go_on_with_a_database_that_a_new_one_brought_up_to_date_and_do_not_start_on_it() {
    for version in RELEASED {
        share_a_database(version, &[]).await;
    }
}

#[tokio::test]
#[ignore = "make test-long runs it"]
async fn long_released_processes_go_on_with_a_postgresql_that_a_new_one_brought_up_to_date_and_do_not_start_on_it() {
    for version in RELEASED {
        let postgres = Postgres::start();
        share_a_database(version, &[("MODELWAY__STORE__URL", postgres.url())]).await;
    }
}

#[tokio::test]
#[ignore = "make test-long runs it"]
async fn long_replicas_of_a_released_version_are_adopted_and_changed_as_ever() {
    for version in RELEASED {
        let mut modelway = Modelway::new();
        modelway.set("MODELWAY__SERVE__PYTHON", python().to_str().unwrap());
        modelway.run_binary(Some(Release::of(version).binary()));
        modelway.start(Role::Up).await;
        let models = modelway.models();
        let iris = modelway.deploy("iris", &models.iris("iris"), 2).await;
        let doubling = modelway.deploy("doubling", &models.doubling("doubling"), 1).await;
        for id in [iris, doubling] {
            modelway.until_active(id).await;
        }
        let before = (modelway.replica_pids(), modelway.python_pids());
        assert_eq!((before.0.len(), before.1.len()), (3, 1));
        modelway.kill(Role::Up);

        modelway.run_binary(None);
        modelway.start(Role::Up).await;
        modelway.until_predicts("iris").await;
        let url = modelway.gateway("/v1/models/doubling:predict");
        until("the Python model answers", || async {
            let answer = modelway.ask(Method::POST, &url, json!({"instances": [1.5]})).await;
            answer.body["predictions"] == json!([3.0])
        })
        .await;
        for id in [iris, doubling] {
            modelway.until_active(id).await;
        }
        scale(&modelway, iris, 3).await;
        let after = modelway.replica_pids();
        assert!(before.0.iter().all(|pid| after.contains(pid)), "{before:?}, then {after:?}");
        assert_eq!(modelway.python_pids(), before.1);
        let restarts: Vec<_> =
            modelway.deployment(iris).await.status.replica_status.iter().map(|it| it.restarts).collect();
        assert_eq!(restarts, [0, 0, 0]);
        let strays = modelway.succeed(&["strays", "-o", "json"]);
        assert!(!strays.contains("md-"), "{strays}");

        // Each kind of change reaches them.
        scale(&modelway, iris, 1).await;
        replace(&modelway, iris, &models.iris("newer")).await;
        modelway.until_active(iris).await;
        until("only the new revision runs", || async {
            predicts(&modelway, "iris").await.1["model_version"] == "2" && modelway.replica_pids().len() == 2
        })
        .await;
        modelway.succeed(&["rollback", "iris"]);
        modelway.until_predicts("iris").await;
        modelway.succeed(&["delete", "doubling", "--yes", "--wait"]);
        assert_eq!(modelway.python_pids(), Vec::<u32>::new());
        assert!(modelway.stop(Role::Up).await.success());
        assert_eq!(modelway.replica_pids(), Vec::<u32>::new());
    }
}

/// Two gateways, as behind a load balancer, and each role replaced in the order that `docs/stability.md` says.
#[tokio::test]
#[ignore = "make test-long runs it"]
async fn long_an_upgrade_under_load_fails_no_request_and_starts_no_replica_again() {
    for version in RELEASED {
        let old = Release::of(version);
        let mut modelway = Modelway::new();
        let mut second = Modelway::new();
        second.ports.control = modelway.ports.control;
        modelway.run_binary(Some(old.binary()));
        second.run_binary(Some(old.binary()));
        modelway.start_apart().await;
        second.start(Role::Gateway).await;
        let models = modelway.models();
        let id = modelway.deploy("iris", &models.iris("iris"), 2).await;
        modelway.until_active(id).await;
        modelway.until_predicts("iris").await;
        second.until_predicts("iris").await;
        let before = modelway.replica_pids();
        let [one, two] = [&modelway, &second].map(|it| it.infer_url("iris"));
        let load = Load::balanced(&[one.clone(), two.clone()], &modelway.iris_body(), 4);
        load.answers(200).await;

        modelway.run_binary(None);
        second.run_binary(None);
        for role in [Role::Control, Role::Worker] {
            assert!(modelway.stop(role).await.success());
            load.answers(200).await;
            modelway.start(role).await;
            modelway.until_active(id).await;
            load.answers(200).await;
        }
        for (gateway, other) in [(&mut modelway, &two), (&mut second, &one)] {
            load.turn_to(std::slice::from_ref(other));
            load.answers(200).await;
            assert!(gateway.stop(Role::Gateway).await.success());
            gateway.start(Role::Gateway).await;
            gateway.until_predicts("iris").await;
            load.turn_to(&[one.clone(), two.clone()]);
            load.answers(200).await;
        }
        assert_eq!(modelway.replica_pids(), before, "no replica was started for it");

        // Then the replicas, one revision after the other.
        replace(&modelway, id, &models.iris("newer")).await;
        modelway.until_active(id).await;
        modelway.until_deployment(id, "the old replicas are gone", |d| d.status.replica_status.len() == 2).await;
        for it in [&modelway, &second] {
            until("the new revision answers", || async { predicts(it, "iris").await.1["model_version"] == "2" }).await;
        }
        load.answers(200).await;
        load.stop().await.assert_flawless();
    }
}
