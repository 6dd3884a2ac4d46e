//! From a model's files to predictions, through the control plane's own API.

use modelway_e2e::{Modelway, Role, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn the_public_sample_becomes_active_with_its_url_and_predicts() {
    let mut modelway = Modelway::up().await;
    let folder = modelway.models().iris("models");
    // The folder `models/v1` does not exist: the prefix itself is served.
    let sample = json!({
        "type": "cpu",
        "model": {"version": "v1", "type": "single", "bucket": folder.parent().unwrap(), "prefix": "models"},
        "replicas": 1,
        "request_res": {"cpu": "500m", "memory": "512Mi"},
        "limit_res": {"cpu": "1", "memory": "1Gi"}
    });
    let created = modelway.ask(Method::POST, &modelway.control("/v1/modelDeployment"), sample.clone()).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let id = created.body["id"].as_i64().unwrap();
    assert_eq!(created.headers["location"], format!("/v1/modelDeployment/{id}"));
    modelway.until_active(id).await;

    let got =
        modelway.ask(Method::GET, &modelway.control(&format!("/v1/modelDeployment/{id}")), Value::Null).await.body;
    for (field, value) in sample.as_object().unwrap() {
        assert_eq!(&got[field], value, "{field}");
    }
    assert_eq!(got["status"], "active");
    assert_eq!(got["url"], modelway.gateway(&format!("/v2/models/md-{id}/infer")));
    let time = got["created_at"].as_str().unwrap();
    assert_eq!((time.len(), &time[10..11], &time[19..20]), (26, "T", "."), "{time}");

    let url = got["url"].as_str().unwrap();
    until("the gateway knows it", || async {
        modelway.ask(Method::POST, url, modelway.iris_body()).await.status == 200
    })
    .await;
    let answer = modelway.ask(Method::POST, url, modelway.iris_body()).await;
    assert_eq!(answer.body["model_name"], format!("md-{id}"));
    assert_eq!(answer.body["outputs"][0]["data"], json!([0, 2]));
    assert_eq!(answer.headers["x-modelway-deployment"], format!("md-{id}"));
    assert_eq!(answer.headers["x-modelway-revision"], "1");
    assert!(answer.headers.contains_key("x-modelway-replica"));
    assert!(answer.headers.contains_key("x-request-id"));
    let live = modelway.gateway(&format!("/v2/models/md-{id}/health/live"));
    for method in [Method::GET, Method::POST] {
        assert_eq!(modelway.ask(method, &live, Value::Null).await.status, 200);
    }
    // In good order, so that the groups of the limits go too.
    assert!(modelway.stop(Role::Up).await.success());
}

#[tokio::test]
async fn a_registered_version_is_deployed_by_name_and_cannot_be_deleted_while_in_use() {
    let modelway = Modelway::up().await;
    let folder = modelway.models().iris("iris");
    let registry = modelway.control("/v1/registeredModels");
    let answer = modelway.ask(Method::POST, &registry, json!({"name": "flowers", "description": "iris"})).await;
    assert_eq!(answer.status, 201, "{answer:#?}");
    let versions = format!("{registry}/flowers/versions");
    let version = json!({"version": "7", "uri": folder, "format": "onnx"});
    assert_eq!(modelway.ask(Method::POST, &versions, version).await.status, 201);

    let body = json!({"name": "by-name", "model": {"name": "flowers", "version": "7"}});
    let id =
        modelway.ask(Method::POST, &modelway.control("/v1/modelDeployment"), body).await.body["id"].as_i64().unwrap();
    modelway.until_active(id).await;
    modelway.until_predicts("by-name").await;
    let by_version = modelway.gateway("/v2/models/by-name/versions/7/infer");
    assert_eq!(modelway.ask(Method::POST, &by_version, modelway.iris_body()).await.status, 200);
    let unknown = modelway.gateway("/v2/models/by-name/versions/8/infer");
    assert_eq!(modelway.ask(Method::POST, &unknown, modelway.iris_body()).await.status, 404);

    let version = format!("{versions}/7");
    let refused = modelway.ask(Method::DELETE, &version, Value::Null).await;
    assert_eq!((refused.status.as_u16(), &refused.body["code"]), (409, &json!("in_use")), "{refused:#?}");

    let deployment = modelway.control(&format!("/v1/modelDeployment/{id}"));
    assert_eq!(modelway.ask(Method::DELETE, &deployment, Value::Null).await.status, 202);
    until("it is gone", || async { modelway.ask(Method::GET, &deployment, Value::Null).await.status == 404 }).await;
    assert!(modelway.replica_pids().is_empty());
    until("the gateway forgets it", || async {
        modelway.ask(Method::POST, &modelway.infer_url("by-name"), modelway.iris_body()).await.status == 404
    })
    .await;
    assert!(modelway.ask(Method::DELETE, &version, Value::Null).await.status.is_success());
}

#[tokio::test]
async fn lost_updates_and_repeated_posts_are_noticed() {
    let modelway = Modelway::up().await;
    let folder = modelway.models().iris("iris");
    let deployments = modelway.control("/v1/modelDeployment");
    let body = json!({"model": {"version": "1", "bucket": folder}, "replicas": 0});
    let key = [("idempotency-key", "one")];
    let first = modelway.ask_with(Method::POST, &deployments, body.clone(), &key).await;
    let again = modelway.ask_with(Method::POST, &deployments, body.clone(), &key).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.body["id"], again.body["id"]);
    let other =
        modelway.ask_with(Method::POST, &deployments, json!({"model": {"version": "2", "bucket": folder}}), &key).await;
    assert_eq!(other.status, 422, "{other:#?}");

    let url = format!("{deployments}/{}", first.body["id"]);
    let etag = modelway.ask(Method::GET, &url, Value::Null).await.headers["etag"].to_str().unwrap().to_owned();
    let change = json!({"labels": {"team": "a"}});
    let fresh = modelway.ask_with(Method::PATCH, &url, change, &[("if-match", &etag)]).await;
    assert_eq!(fresh.status, 200);
    assert_eq!(fresh.body["revision"], 1, "labels change nothing that runs");
    let stale = modelway.ask_with(Method::PATCH, &url, json!({"labels": {"team": "b"}}), &[("if-match", &etag)]).await;
    assert_eq!(stale.status, 412, "{stale:#?}");
    assert_eq!(modelway.ask(Method::GET, &url, Value::Null).await.body["labels"]["team"], "a");
}

#[tokio::test]
async fn nothing_asked_for_is_idle_and_answers_why_then_scales_up_and_down() {
    let modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 0).await;
    modelway.until_deployment(id, "it is idle", |d| d.status.state == api::State::Idle).await;
    let idle = until_status(&modelway, "iris", 503).await;
    assert!(idle.headers.contains_key("retry-after"));
    assert!(idle.body["error"].as_str().unwrap().contains("replicas"), "{idle:#?}");

    let scale = modelway.control(&format!("/v1/modelDeployment/{id}/scale"));
    for wanted in [2, 1, 0] {
        assert_eq!(modelway.ask(Method::PUT, &scale, json!({"replicas": wanted})).await.status, 200);
        until("it has as many replicas as wanted", || async { modelway.replica_pids().len() == wanted }).await;
        if wanted > 0 {
            modelway.until_predicts("iris").await;
        }
    }
    until_status(&modelway, "iris", 503).await;

    let near = modelway.ask(Method::POST, &modelway.infer_url("irsi"), modelway.iris_body()).await;
    assert_eq!(near.status, 404);
    assert!(near.body["error"].as_str().unwrap().contains("iris"), "{near:#?}");
}

#[tokio::test]
async fn what_was_decided_is_in_the_events_and_the_page_to_try_it_is_there() {
    let modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 1).await;
    modelway.until_active(id).await;
    let events =
        modelway.ask(Method::GET, &modelway.control(&format!("/v1/modelDeployment/{id}/events")), Value::Null).await;
    let kinds: Vec<_> = events.body["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.first(), Some(&"created"), "{events:#?}");
    let openapi = modelway.ask(Method::GET, &modelway.control("/openapi.json"), Value::Null).await;
    assert!(openapi.body["openapi"].as_str().unwrap().starts_with("3.1"), "{openapi:#?}");
    let client = modelway_e2e::client();
    let docs = client.get(modelway.control("/docs")).send().await.unwrap();
    assert!(docs.status().is_success());
    for (plane, series) in [
        (modelway.control("/metrics"), "process_resident_memory_bytes"),
        (modelway.gateway("/metrics"), "modelway_gateway_requests_total"),
    ] {
        modelway.until_predicts("iris").await;
        let text = client.get(&plane).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(series), "{plane} lacks {series}:\n{text}");
    }
}

async fn until_status(modelway: &Modelway, name: &str, status: u16) -> modelway_e2e::Answer {
    let url = modelway.infer_url(name);
    until(&format!("{name} answers {status}"), || async {
        modelway.ask(Method::POST, &url, modelway.iris_body()).await.status == status
    })
    .await;
    modelway.ask(Method::POST, &url, modelway.iris_body()).await
}

#[tokio::test]
async fn nothing_is_kept_in_the_home_directory_or_told_to_others() {
    let mut modelway = Modelway::new();
    let home = modelway.data_dir().with_file_name("home");
    std::fs::create_dir(&home).unwrap();
    modelway.set("HOME", home.to_str().unwrap());
    modelway.set("XDG_CACHE_HOME", "");
    // What whoever runs the tests has set for themselves.
    modelway.set("ORT_DISABLE_TELEMETRY", "");
    modelway.start(Role::Up).await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 1).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let kept: Vec<_> = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(kept.is_empty(), "{kept:?}");
    assert!(modelway.stop(Role::Up).await.success());
}
