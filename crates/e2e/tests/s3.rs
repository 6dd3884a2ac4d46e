//! Models out of a real S3, with the credentials in the environment of `up`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

use api::State;
use modelway_e2e::{Modelway, Role, S3};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn models_come_from_a_bucket_once_for_all_replicas_and_a_missing_one_is_named() {
    let s3 = S3::start().await;
    let mut modelway = Modelway::new();
    s3.open_to(&mut modelway);
    modelway.set("MODELWAY__PROCESS__PERMANENT_RETRY_MS", "500");
    modelway.start(Role::Up).await;
    let iris = modelway.models().iris("iris");
    s3.put("versioned/v1", &iris);
    s3.put("flat", &iris);

    for (name, served) in [("versioned", "s3://models/versioned/v1"), ("flat", "s3://models/flat")] {
        let id = deploy(&modelway, name, 2).await;
        let active = modelway.until_active(id).await;
        assert_eq!(active.status.artifact.as_deref(), Some(served));
        modelway.until_predicts(name).await;
        let answer = modelway.ask(Method::POST, &modelway.infer_url(name), modelway.iris_body()).await;
        assert_eq!(answer.body["outputs"][0]["data"], json!([0, 2]));
        assert_eq!(answer.body["model_version"], "v1");
    }
    assert_eq!(s3.reads("versioned/v1/model.onnx"), 1, "two replicas, one download");
    assert_eq!(s3.reads("flat/model.onnx"), 1, "two replicas, one download");

    let id = deploy(&modelway, "absent", 1).await;
    let failed = modelway.until_deployment(id, "it fails", |d| d.status.state == State::Failed).await;
    let error = failed.status.error.expect("a reason");
    assert_eq!(error.code, "artifact_missing", "{error:#?}");
    for place in ["s3://models/absent/v1", "s3://models/absent"] {
        assert!(error.message.contains(place), "{error:#?}");
    }

    // Uploaded later, it comes without a command.
    s3.put("absent/v1", &iris);
    modelway.until_active(id).await;
    modelway.until_predicts("absent").await;
}

async fn deploy(modelway: &Modelway, name: &str, replicas: u32) -> i64 {
    let body = json!({
        "name": name,
        "model": {"version": "v1", "type": "single", "bucket": "s3://models", "prefix": name},
        "replicas": replicas,
    });
    let answer = modelway.ask(Method::POST, &modelway.control("/v1/modelDeployment"), body).await;
    assert_eq!(answer.status, 201, "{answer:#?}");
    answer.body["id"].as_i64().unwrap()
}

#[tokio::test]
async fn the_wrong_secret_is_said() {
    let s3 = S3::start().await;
    let mut modelway = Modelway::new();
    s3.open_to(&mut modelway);
    modelway.set("AWS_SECRET_ACCESS_KEY", "wrong");
    modelway.start(Role::Up).await;
    s3.put("iris/v1", &modelway.models().iris("iris"));
    let id = deploy(&modelway, "iris", 1).await;
    let failed = modelway.until_deployment(id, "it fails", |d| d.status.state == State::Failed).await;
    let error = failed.status.error.expect("a reason");
    assert_eq!(error.code, "artifact_denied", "{error:#?}");
    let shown = modelway.ask(Method::GET, &modelway.control(&format!("/v1/modelDeployment/{id}")), Value::Null).await;
    assert!(!shown.body.to_string().contains("wrong"), "no secret is shown: {shown:#?}");
}
