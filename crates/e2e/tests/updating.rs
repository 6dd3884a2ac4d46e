//! Changing what is deployed, and going back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{fs, process::Command};

use modelway_e2e::{Modelway, Role, python};
use reqwest::Method;
use serde_json::{Value, json};

fn get(modelway: &Modelway, who: &str) -> Value {
    serde_json::from_str(&modelway.succeed(&["get", who, "-o", "json"])).unwrap()
}

/// A command that fails: its status, and what it said.
fn fails(modelway: &Modelway, line: &[&str]) -> (i32, String) {
    let output = modelway.run(line);
    assert!(!output.status.success(), "{line:?}: {output:#?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn applying_a_file_leaves_alone_what_it_does_not_name() {
    let modelway = Modelway::up().await;
    let folder = modelway.models().iris("iris");
    let file = modelway.data_dir().join("iris.yaml");
    let write = |more: &str| {
        let text = format!("name: iris\nmodel: {{version: \"1\", bucket: {}}}\n{more}", folder.display());
        fs::write(&file, text).unwrap();
    };
    let apply = |more: &[&str]| modelway.succeed(&[&["apply", "-f", file.to_str().unwrap()], more].concat());
    write("env: {A: \"1\"}\n");
    apply(&["--wait"]);
    modelway.succeed(&["scale", "iris", "0", "--wait"]);
    let path = folder.to_str().unwrap();
    modelway.succeed(&["deploy", path, "--name", "iris", "--version", "1", "--env", "B=2", "--wait"]);

    let told = apply(&["--dry-run"]);
    assert!(told.contains("would not change\n# not in the file and left as they are: replicas, env.B"), "{told}");
    let told = apply(&[]);
    assert!(told.contains("is unchanged; not in the file and left as they are: replicas, env.B"), "{told}");
    let one = get(&modelway, "iris");
    assert_eq!((&one["replicas"], &one["env"]), (&json!(0), &json!({"A": "1", "B": "2"})), "a scale is not undone");

    write("replicas: null\nenv: {B: null}\n");
    let told = apply(&["--dry-run"]);
    assert!(told.contains("-replicas: 0\n+replicas: 1") && told.contains("-  B: '2'"), "{told}");
    apply(&["--wait"]);
    let one = get(&modelway, "iris");
    assert_eq!((&one["replicas"], &one["env"], &one["status"]), (&json!(1), &json!({"A": "1"}), &json!("active")));

    // What `get` printed, edited, is a manifest too.
    let answer = modelway.succeed(&["get", "iris", "-o", "yaml"]).replace("replicas: 1", "replicas: 0");
    fs::write(&file, answer).unwrap();
    apply(&["--wait"]);
    assert_eq!(get(&modelway, "iris")["status"], "idle");
}

#[tokio::test]
async fn digits_that_are_a_number_and_a_name_are_not_guessed_at() {
    let mut modelway = Modelway::up().await;
    let folder = modelway.models().iris("iris");
    for name in ["one", "two"] {
        let id = modelway.deploy(name, &folder, 1).await;
        modelway.until_active(id).await;
    }
    let refused = fails(&modelway, &["deploy", folder.to_str().unwrap(), "--name", "7"]).1;
    assert!(refused.contains("would be taken for the number"), "{refused}");

    // Older versions took such names.
    modelway.stop(Role::Up).await;
    let rename = "import sqlite3, sys\nsql = sqlite3.connect(sys.argv[1])\n\
        sql.execute(\"UPDATE deployment SET name = '1', spec = replace(spec, '\\\"two\\\"', '\\\"1\\\"') WHERE id = 2\")\n\
        sql.execute(\"UPDATE route SET route = replace(route, '\\\"two\\\"', '\\\"1\\\"'), policy = replace(policy, '\\\"two\\\"', '\\\"1\\\"') WHERE deployment = 2\")\nsql.commit()";
    let file = modelway.data_dir().join("modelway.db");
    assert!(Command::new(python()).args(["-c", rename]).arg(file).status().unwrap().success());
    // The change above has no version that would tell the gateway of it.
    fs::remove_file(modelway.data_dir().join("gateway/routes.json")).unwrap();
    modelway.start(Role::Up).await;
    for id in [1, 2] {
        modelway.until_active(id).await;
    }
    for line in [
        &["scale", "1", "0"][..],
        &["delete", "1", "--yes"],
        &["get", "1"],
        &["describe", "1"],
        &["events", "1"],
        &["logs", "1"],
    ] {
        let (status, said) = fails(&modelway, line);
        assert!(status == 2 && said.contains("Write md-1 or md-2"), "{line:?}: {said}");
    }
    let (status, said) = fails(&modelway, &["predict", "1", "--data", "[[5.1, 3.5, 1.4, 0.2]]"]);
    assert!(status == 2 && said.contains("Write md-1"), "{said}");
    modelway.succeed(&["predict", "md-1", "--data", "[[5.1, 3.5, 1.4, 0.2]]"]);
    assert_eq!((&get(&modelway, "2")["name"], &get(&modelway, "md-1")["name"]), (&json!("1"), &json!("one")));

    // One that has such a name can be changed as ever.
    let url = modelway.control("/v1/modelDeployment/2");
    let changed = modelway.ask(Method::PATCH, &url, json!({"labels": {"a": "b"}})).await;
    assert_eq!(changed.status, 200, "{changed:#?}");
    let changed = modelway.ask(Method::PUT, &url, changed.body).await;
    assert_eq!(changed.status, 200, "{changed:#?}");
    modelway.succeed(&["scale", "md-2", "0", "--wait"]);
    modelway.succeed(&["delete", "md-1", "--yes", "--wait"]);
    assert_eq!(get(&modelway, "1")["id"], 2, "now there is only the name");
}

#[tokio::test]
async fn going_back_is_one_command_and_revisions_are_counted_forwards() {
    let modelway = Modelway::up().await;
    let models = modelway.models();
    let (old, other, broken) = (models.iris("old"), models.iris("other"), models.broken("broken"));
    let deploy = |model: &std::path::Path| ["deploy", model.to_str().unwrap(), "--name", "iris"].map(str::to_owned);
    let run = |line: &[String]| modelway.run(&line.iter().map(String::as_str).collect::<Vec<_>>());
    for (model, revision) in [(&old, 1), (&other, 2), (&old, 3)] {
        assert!(run(&deploy(model)).status.success());
        assert_eq!(get(&modelway, "iris")["revision"], revision, "the files at an old path may have changed");
    }
    modelway.succeed(&["scale", "iris", "2", "--wait"]);

    let failed = run(&deploy(&broken));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(said.contains("Revision 3 keeps serving. To go back to it: modelway rollback iris\n"), "{said}");
    let file = broken.join("model.onnx");
    assert!(said.contains(&format!("{} cannot be loaded", file.display())), "it names the user's file: {said}");
    let listed = modelway.succeed(&["list"]);
    assert!(
        listed.contains("3 -> 4") && listed.contains("models/old") && !listed.contains("models/broken"),
        "{listed}"
    );
    modelway.succeed(&["scale", "iris", "3"]);
    let grown = |d: &api::Deployment| {
        d.status
            .replica_status
            .iter()
            .filter(|r| r.revision.0 == 3 && r.state == api::replica::ReplicaState::Ready)
            .count()
    };
    let one = modelway.until_deployment(1, "three replicas of the revision that serves", |d| grown(d) == 3).await;
    assert!(one.status.ready_replicas <= 3);

    let before = modelway.replica_pids();
    let said = modelway.succeed(&["rollback", "iris"]);
    assert!(said.contains("is active: revision 3, 3 of 3 replicas ready"), "{said}");
    let one = get(&modelway, "iris");
    assert!(one["model"]["bucket"].as_str().unwrap().ends_with("models/old"), "{one:#}");
    modelway.until_deployment(1, "nothing else runs", |d| d.status.replica_status.len() == 3).await;
    assert!(modelway.replica_pids().iter().all(|pid| before.contains(pid)), "nothing was started");

    let said = modelway.succeed(&["rollback", "iris", "--to", "2"]);
    assert!(said.contains("is active: revision 2"), "{said}");
    let missing = fails(&modelway, &["rollback", "iris", "--to", "9"]).1;
    assert!(missing.contains("there is no revision 9; the kept revisions are 4, 3, 2, 1"), "{missing}");
}
