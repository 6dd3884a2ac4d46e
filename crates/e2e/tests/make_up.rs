//! `make up` after its build: `scripts/up.sh`, beside a `bin/modelway` as `make build` leaves it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use modelway_e2e::{Modelway, binary, kill, until, until_some};
use rustix::process::Signal;

#[tokio::test]
async fn it_greets_with_a_prediction_refuses_a_second_start_and_ends_with_ctrl_c() {
    let modelway = Modelway::new();
    let checkout = modelway.models().iris("unused").parent().unwrap().join("checkout");
    fs::create_dir_all(checkout.join("bin")).unwrap();
    symlink(binary(), checkout.join("bin/modelway")).unwrap();
    symlink(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts"), checkout.join("scripts")).unwrap();
    let script = || {
        let mut script = Command::new("bash");
        script
            .arg(checkout.join("scripts/up.sh"))
            .env("GATEWAY_ADDR", format!("127.0.0.1:{}", modelway.ports.gateway))
            .env("CONTROL_ADDR", format!("127.0.0.1:{}", modelway.ports.control))
            .env("DATA_DIR", modelway.data_dir())
            .stdin(Stdio::null());
        script
    };
    let said = checkout.join("said");
    let mut first = script().stdout(fs::File::create(&said).unwrap()).spawn().unwrap();
    until("it greets", || async { fs::read_to_string(&said).unwrap().contains("Ctrl-C ends it.") }).await;
    let greeting = fs::read_to_string(&said).unwrap();
    for word in ["label", &modelway.infer_url("iris"), &modelway.control("/docs"), "predict iris"] {
        assert!(greeting.contains(word), "it says {word}: {greeting}");
    }
    modelway.until_predicts("iris").await;

    let replicas = modelway.replica_pids();
    let second = script().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let refusal = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(refusal.contains("is running at"), "{refusal}");
    assert_eq!(modelway.replica_pids(), replicas, "the first goes on unharmed");
    modelway.until_predicts("iris").await;

    kill(first.id(), Signal::INT);
    let ended = until_some("it ends", || std::future::ready(first.try_wait().unwrap())).await;
    assert!(ended.success());
    assert!(modelway.replica_pids().is_empty());
}
