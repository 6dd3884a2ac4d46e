//! `doctor` and `support-bundle`, as a person in trouble runs them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _};

use flate2::read::GzDecoder;
use modelway_e2e::{Modelway, Role};
use reqwest::Method;
use serde_json::{Value, json};

fn checks(modelway: &Modelway) -> (Option<i32>, Vec<Value>) {
    let output = modelway.run(&["doctor", "-o", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:#?}"));
    (output.status.code(), found["checks"].as_array().unwrap().clone())
}

fn grade<'c>(checks: &'c [Value], name: &str) -> &'c str {
    let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {checks:#?}"));
    check["grade"].as_str().unwrap()
}

#[tokio::test]
async fn doctor_says_what_is_wrong_and_changes_nothing() {
    let mut modelway = Modelway::new();
    let (code, found) = checks(&modelway);
    assert_eq!((code, grade(&found, "database")), (Some(0), "ok"), "{found:#?}");
    assert!(!modelway.data_dir().exists(), "it makes nothing");

    modelway.start(Role::Up).await;
    let (code, found) = checks(&modelway);
    assert_eq!(code, Some(0), "{found:#?}");
    for name in ["data directory", "database", "workers", "stray replicas", "control plane", "gateway", "clocks"] {
        assert_eq!(grade(&found, name), "ok", "{found:#?}");
    }
    assert!(modelway.stop(Role::Up).await.success());

    let taken = std::net::TcpListener::bind(("127.0.0.1", modelway.ports.control)).unwrap();
    fs::set_permissions(modelway.data_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(modelway.data_dir().join("replicas"), fs::Permissions::from_mode(0o755)).unwrap();
    let (code, found) = checks(&modelway);
    assert_eq!((code, grade(&found, "control plane"), grade(&found, "data directory")), (Some(1), "failed", "warning"));
    assert_eq!(grade(&found, "workers"), "warning", "{found:#?}");
    drop(taken);

    let database = modelway.data_dir().join("modelway.db");
    fs::write(&database, "this is no database, and is long enough to be told from an empty one".repeat(20)).unwrap();
    let (code, found) = checks(&modelway);
    assert_eq!((code, grade(&found, "database")), (Some(1), "failed"), "{found:#?}");
}

#[tokio::test]
async fn a_support_bundle_has_what_helps_and_no_secret() {
    let mut modelway = Modelway::new();
    let settings = modelway.data_dir().parent().unwrap().join("modelway.toml");
    fs::write(settings, "[process.serve_env]\nAWS_SECRET_ACCESS_KEY = \"wJalrXUtnFEMI\"\n").unwrap();
    modelway.start(Role::Up).await;
    let model = modelway.models().iris("iris");
    let secret = model.parent().unwrap().join("db-password");
    fs::write(&secret, "correct horse\n").unwrap();
    let body = json!({
        "name": "iris", "replicas": 1,
        "model": {"version": "1", "bucket": model.parent().unwrap(), "prefix": "iris"},
        "env": {"API_TOKEN": "tr0ub4dor", "DATABASE_URL": "postgres://me:sesame@db/x", "COLOUR": "blue"},
        "env_from_file": {"DB_PASSWORD": secret},
    });
    let answer = modelway.ask(Method::POST, &modelway.control("/v1/modelDeployment"), body).await;
    assert_eq!(answer.status, 201, "{answer:#?}");
    let id = answer.body["id"].as_i64().unwrap();
    modelway.until_active(id).await;
    // What a model prints by mistake.
    let log = modelway.data_dir().join(format!("replicas/md-{id}-r1-0/log"));
    let mut text = fs::read_to_string(&log).unwrap();
    text.push_str("connecting with tr0ub4dor and correct horse, key wJalrXUtnFEMI, to postgres://me:sesame@db/x\n");
    fs::write(&log, text).unwrap();

    let file = modelway.data_dir().join("bundle.tar.gz");
    modelway.succeed(&["support-bundle", "--file", file.to_str().unwrap()]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut whole = Vec::new();
    GzDecoder::new(fs::File::open(&file).unwrap()).read_to_end(&mut whole).unwrap();
    let whole = String::from_utf8_lossy(&whole).into_owned();
    for secret in ["tr0ub4dor", "correct horse", "wJalrXUtnFEMI", "sesame"] {
        assert!(!whole.contains(secret), "{secret} is in it");
    }
    let log = format!("logs/md-{id}-r1-0.txt");
    let parts = ["version.json", "settings.toml", "doctor.txt", "deployments.json", "events.json", "strays.json", &log];
    for part in parts {
        assert!(whole.contains(&format!("modelway-support/{part}")), "{part} is missing");
    }
    for said in ["connecting with <redacted>", "\"COLOUR\": \"blue\"", "modelway_gateway_", "\"created\""] {
        assert!(whole.contains(said), "{said} is missing");
    }
    let again = modelway.run(&["support-bundle", "--file", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1), "it writes over nothing: {again:#?}");

    assert!(modelway.stop(Role::Up).await.success());
    let offline = modelway.data_dir().join("offline.tar.gz");
    modelway.succeed(&["support-bundle", "--file", offline.to_str().unwrap()]);
}
