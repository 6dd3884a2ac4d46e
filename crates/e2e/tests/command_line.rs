//! The commands, typed as a person types them.

use std::{fs, process::Output};

use modelway_e2e::Modelway;
use serde_json::Value;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_model_goes_from_file_to_prediction_to_nothing() {
    let modelway = Modelway::up().await;
    let folder = modelway.models().iris("iris");
    let folder = folder.to_str().unwrap();

    modelway.succeed(&["deploy", folder, "--name", "iris", "--replicas", "1"]);
    let listed = modelway.succeed(&["list"]);
    assert!(listed.contains("iris") && listed.contains("active"), "{listed}");
    let one: Value = serde_json::from_str(&modelway.succeed(&["get", "iris", "-o", "json"])).unwrap();
    assert_eq!(one["status"], "active");
    assert!(modelway.succeed(&["get", "iris", "-o", "yaml"]).contains("status: active"));

    let answer: Value =
        serde_json::from_str(&modelway.succeed(&["predict", "iris", "--data", "[[6.7, 3.0, 5.2, 2.3]]", "-o", "json"]))
            .unwrap();
    assert_eq!(answer["outputs"][0]["data"][0], 2, "{answer:#}");
    assert!(modelway.succeed(&["predict", "iris", "--data", "[[6.7, 3.0, 5.2, 2.3]]"]).contains('2'));

    let described = modelway.succeed(&["describe", "iris"]);
    assert!(described.contains("md-1-r1-0"), "{described}");
    assert!(modelway.succeed(&["events", "iris"]).contains("created"));
    assert!(!modelway.succeed(&["logs", "iris"]).is_empty());

    modelway.succeed(&["scale", "iris", "2", "--wait"]);
    assert_eq!(modelway.replica_pids().len(), 2);
    // The same name again is a change, not a second deployment.
    modelway.succeed(&["deploy", folder, "--name", "iris", "--env", "A=1"]);
    let one: Value = serde_json::from_str(&modelway.succeed(&["get", "iris", "-o", "json"])).unwrap();
    assert_eq!((&one["id"], &one["revision"]), (&Value::from(1), &Value::from(2)));

    modelway.succeed(&["delete", "iris", "--yes", "--wait"]);
    assert!(modelway.replica_pids().is_empty());
    let gone = modelway.run(&["get", "iris"]);
    assert!(!gone.status.success());
    assert!(said(&gone).contains("modelway list"), "it says what to do next: {}", said(&gone));
}

#[tokio::test]
async fn applying_a_file_twice_changes_nothing_and_a_dry_run_shows_the_difference() {
    let modelway = Modelway::up().await;
    let folder = modelway.models().iris("iris");
    let file = modelway.data_dir().join("two.yaml");
    let manifest = |replicas: u32| {
        format!(
            "name: one\nmodel: {{version: \"1\", bucket: {0}}}\nreplicas: {replicas}\n---\nname: two\nmodel: {{version: \"1\", bucket: {0}}}\nreplicas: 0\n",
            folder.display()
        )
    };
    fs::write(&file, manifest(1)).unwrap();
    let file = file.to_str().unwrap();

    modelway.succeed(&["apply", "-f", file, "--dry-run"]);
    assert!(!modelway.succeed(&["list"]).contains("one"), "a dry run changes nothing");
    modelway.succeed(&["apply", "-f", file, "--wait"]);
    let before: Value = serde_json::from_str(&modelway.succeed(&["get", "one", "-o", "json"])).unwrap();
    modelway.succeed(&["apply", "-f", file]);
    let after: Value = serde_json::from_str(&modelway.succeed(&["get", "one", "-o", "json"])).unwrap();
    assert_eq!(before["updated_at"], after["updated_at"]);

    fs::write(file, manifest(2)).unwrap();
    let difference = modelway.succeed(&["apply", "-f", file, "--dry-run"]);
    assert!(difference.contains("-replicas: 1") && difference.contains("+replicas: 2"), "{difference}");

    fs::write(file, "name: one\nmodle: {version: 1}\n---\nname: two\nreplicas: many\n").unwrap();
    let refused = modelway.run(&["apply", "-f", file]);
    assert!(!refused.status.success());
    for word in ["model", "modle", "/replicas"] {
        assert!(said(&refused).contains(word), "{}", said(&refused));
    }
}

#[tokio::test]
async fn a_failed_deploy_prints_the_reason_and_the_exit_code_tells_programs() {
    let modelway = Modelway::up().await;
    let folder = modelway.models().broken("broken");
    let failed = modelway.run(&["deploy", folder.to_str().unwrap(), "--name", "broken"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(said(&failed).contains("model.onnx"), "{}", said(&failed));

    let misspelt = modelway.run(&["deploi"]);
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(said(&misspelt).contains("deploy"), "{}", said(&misspelt));
    let away = modelway.run(&["list", "--control-url", "http://127.0.0.1:9"]);
    assert_eq!(away.status.code(), Some(3));
    assert!(said(&away).contains("modelway up"), "{}", said(&away));
}

#[tokio::test]
async fn golden_examples_are_recorded_and_then_held_against_the_model() {
    let modelway = Modelway::up().await;
    let folder = modelway.models().iris("iris");
    fs::remove_file(folder.join("golden.json")).unwrap();
    let folder = folder.to_str().unwrap();
    modelway.succeed(&["golden", "record", folder]);
    modelway.succeed(&["deploy", folder, "--name", "iris"]);
    assert!(modelway.succeed(&["logs", "iris"]).contains("golden"), "the replica says that it checked");
}

#[test]
fn every_setting_can_be_dumped_with_its_source() {
    let modelway = Modelway::new();
    let dumped = modelway.succeed(&["up", "--dump-config"]);
    let line =
        dumped.lines().find(|line| line.contains(&modelway.ports.gateway.to_string())).expect("the address is there");
    assert!(line.contains("MODELWAY__GATEWAY__ADDR"), "{line}");
    assert!(modelway.run(&["completion", "bash"]).status.success());
}

#[test]
fn a_command_line_that_cannot_be_meant_is_answered_with_its_mistake_and_status_2() {
    let modelway = Modelway::new();
    for (line, words) in [
        (&["serve"][..], "there is nothing to serve"),
        (&["up", "--gateway-addr", "foo"][..], "`foo`, which is not an address; write HOST:PORT"),
        (&["scale", "iris", "many"][..], "write a whole number from 0 to 1000"),
        (&["up", "--set", "gateway.adr=x"][..], "`gateway.adr` is not a setting"),
    ] {
        let output = modelway.run(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{line:?}: {}", said(&output));
    }
}
