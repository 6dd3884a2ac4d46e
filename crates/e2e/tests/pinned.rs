//! A revision serves the files that it began with, and changed files are a new revision.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use modelway_e2e::{Modelway, Role, kill, until};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

/// A model that adds `number`, in a folder of its own.
fn write(folder: &Path, number: u32) {
    fs::create_dir_all(folder).unwrap();
    let text = format!(
        "from modelway import AbstractModel\nclass M(AbstractModel):\n    def predict(self, x: int) -> int:\n        \
         return x + {number}\n"
    );
    fs::write(folder.join("model.py"), text).unwrap();
}

async fn up() -> (Modelway, PathBuf) {
    let mut modelway = Modelway::new();
    modelway.set("MODELWAY__SERVE__PYTHON", modelway_e2e::python().to_str().unwrap());
    modelway.start(Role::Up).await;
    let folder = modelway.data_dir().with_file_name("adder");
    (modelway, folder)
}

fn get(modelway: &Modelway, who: &str) -> Value {
    serde_json::from_str(&modelway.succeed(&["get", who, "-o", "json"])).unwrap()
}

/// What the deployment answers to 0, and the version that it says.
fn answer(modelway: &Modelway, who: &str) -> (i64, String) {
    let answer: Value =
        serde_json::from_str(&modelway.succeed(&["predict", who, "--data", "[0]", "-o", "json"])).unwrap();
    let version = answer["model_version"].as_str().unwrap().to_owned();
    (answer["outputs"][0]["data"][0].as_i64().unwrap(), version)
}

/// Kills all replicas, and waits until as many new ones serve.
async fn start_again(modelway: &Modelway, id: i64) {
    let before = modelway.replica_pids();
    before.iter().for_each(|pid| kill(*pid, Signal::KILL));
    until("others run", || async { modelway.replica_pids().iter().all(|pid| !before.contains(pid)) }).await;
    modelway
        .until_deployment(id, "they are ready", |d| {
            let started = d.status.replica_status.iter().filter(|r| r.restarts > 0);
            d.status.state == api::State::Active && started.count() == before.len()
        })
        .await;
}

#[tokio::test]
async fn a_restarted_replica_serves_the_files_that_its_revision_began_with() {
    let (modelway, folder) = up().await;
    write(&folder, 1);
    let path = folder.to_str().unwrap();
    modelway.succeed(&["deploy", path, "--name", "adder", "--replicas", "2"]);
    let (sum, version) = answer(&modelway, "adder");
    let one = get(&modelway, "adder");
    let digest = one["digest"].as_str().unwrap().to_owned();
    assert_eq!(
        (sum, format!("sha256:{version}")),
        (1, digest[..19].to_owned()),
        "the version is its digest's beginning"
    );

    write(&folder, 2);
    start_again(&modelway, 1).await;
    assert_eq!(answer(&modelway, "adder"), (1, version.clone()), "an edited file changes nothing that runs");
    modelway.succeed(&["scale", "adder", "3", "--wait"]);
    assert_eq!((&get(&modelway, "adder")["digest"], answer(&modelway, "adder").0), (&json!(digest), 1));

    modelway.succeed(&["deploy", path, "--name", "adder"]);
    let (sum, next) = answer(&modelway, "adder");
    assert_eq!((sum, &get(&modelway, "adder")["revision"]), (2, &json!(2)));
    assert_ne!(next, version, "the model's version tells the two apart");
    let told = modelway.succeed(&["deploy", path, "--name", "adder"]);
    assert!(told.contains("revision 2") && told.contains("Nothing that runs has changed"), "{told}");

    // The old files are nowhere but in the cache.
    modelway.succeed(&["rollback", "adder"]);
    assert_eq!(answer(&modelway, "adder"), (1, version));
    modelway.succeed(&["rollback", "adder", "--to", "2"]);
    modelway.until_deployment(1, "the old replicas are gone", |d| d.status.replica_status.len() == 3).await;
    fs::remove_dir_all(modelway.data_dir().with_file_name("cache").join("sha256")).unwrap();
    let refused = modelway.run(&["rollback", "adder"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for part in [path, " has changed", &digest, "make", "Revision 2 keeps serving", "modelway rollback adder"] {
        assert!(!refused.status.success() && said.contains(part), "{part}: {said}");
    }
    assert_eq!(answer(&modelway, "adder").0, 2, "requests go where they went");
    modelway.succeed(&["rollback", "adder"]);
    let described = modelway.succeed(&["describe", "adder"]);
    assert!(described.contains(&digest[7..19]) && described.contains(&next), "{described}");
}

#[tokio::test]
async fn changed_files_under_the_same_version_are_a_new_revision() {
    let (modelway, folder) = up().await;
    let version = folder.join("3");
    write(&version, 1);
    let path = version.to_str().unwrap();
    modelway.succeed(&["deploy", path, "--name", "adder"]);
    assert_eq!(answer(&modelway, "adder"), (1, "3".to_owned()));
    write(&version, 2);
    modelway.succeed(&["deploy", path, "--name", "adder"]);
    assert_eq!((answer(&modelway, "adder").0, &get(&modelway, "adder")["revision"]), (2, &json!(2)));

    let file = folder.join("adder.yaml");
    fs::write(&file, "name: adder\nmodel: {version: \"3\", bucket: .}\n").unwrap();
    let apply = |more: &[&str]| modelway.succeed(&[&["apply", "-f", file.to_str().unwrap()], more].concat());
    assert!(apply(&["--wait"]).contains("adder (md-1) is unchanged"));
    write(&version, 3);
    let told = apply(&["--dry-run"]);
    assert!(told.contains("would get a new revision") && told.contains("has changed since revision 2"), "{told}");
    assert!(apply(&["--wait"]).contains("adder (md-1) is changed"));
    assert_eq!((answer(&modelway, "adder").0, &get(&modelway, "adder")["revision"]), (3, &json!(3)));

    // Over HTTP it is asked for.
    let redeployed = modelway.ask(Method::POST, &modelway.control("/v1/modelDeployment/1/redeploy"), Value::Null).await;
    assert_eq!((redeployed.status.as_u16(), &redeployed.body["revision"]), (200, &json!(4)));
    let listed = modelway.ask(Method::GET, &modelway.control("/v1/modelDeployment/1/revisions"), Value::Null).await;
    let pinned = &listed.body["items"][1]["pin"];
    assert!(pinned["digest"].as_str().unwrap().starts_with("sha256:") && pinned["uri"] == path, "{pinned}");
}

#[tokio::test]
async fn files_that_do_not_work_are_pinned_too_and_mended_ones_are_deployed() {
    let (modelway, folder) = up().await;
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("model.py"), "from modelway import AbstractModel\nclass M(AbstractModel): pass\n").unwrap();
    let path = folder.to_str().unwrap();
    assert!(!modelway.run(&["deploy", path, "--name", "adder"]).status.success());
    let broken = get(&modelway, "adder")["digest"].clone();
    assert!(broken.is_string(), "what failed is known: {broken}");
    write(&folder, 1);
    modelway.succeed(&["deploy", path, "--name", "adder"]);
    assert_eq!((answer(&modelway, "adder").0, &get(&modelway, "adder")["revision"]), (1, &json!(2)));
    // The files of the first one are kept, and do not work still.
    let refused = modelway.run(&["rollback", "adder"]);
    assert!(!refused.status.success());
    assert_eq!(answer(&modelway, "adder").0, 1);
}
