//! Rubbish gets a clear error in bounded memory, and everyone else is served.

use std::time::Duration;

use modelway_e2e::{Load, Modelway, Role, SmallDisk, client, kill, peak_memory, raise_open_files, until};
use reqwest::{Body, Method};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn a_model_that_cannot_be_served_fails_with_the_reason_and_disturbs_nobody() {
    let modelway = Modelway::up().await;
    let models = modelway.models();
    let good = modelway.deploy("good", &models.iris("good"), 1).await;
    modelway.until_active(good).await;
    modelway.until_predicts("good").await;
    let load = Load::start(&modelway.infer_url("good"), &modelway.iris_body(), 1);

    let broken = modelway.deploy("broken", &models.broken("broken"), 1).await;
    let differs = modelway.deploy("differs", &models.iris_with_wrong_golden("differs"), 1).await;
    let missing = modelway.deploy("missing", &modelway.data_dir().join("no-such-model"), 1).await;
    let checksum = json!({
        "name": "checksum",
        "model": {"version": "1", "bucket": models.iris("checksum"), "digest": format!("sha256:{}", "0".repeat(64))}
    });
    let checksum =
        modelway.ask(Method::POST, &modelway.control("/v1/modelDeployment"), checksum).await.body["id"].as_i64();

    for (id, word) in [
        (broken, "model.onnx"),
        (differs, "golden example"),
        (missing, "no-such-model"),
        (checksum.unwrap(), "sha256:"),
    ] {
        let failed = modelway
            .until_deployment(id, "it failed", |d| d.status.state == api::State::Failed && d.status.error.is_some())
            .await;
        let error = failed.status.error.unwrap();
        assert!(error.message.contains(word), "the reason names {word}: {error:#?}");
        assert!(!error.log.is_empty(), "the last log lines are there: {error:#?}");
        // The gateway learns of it a moment after the control plane.
        let url = modelway.infer_url(&format!("md-{id}"));
        let told = async || {
            let answer = modelway.ask(Method::POST, &url, modelway.iris_body()).await;
            assert_eq!(answer.status, 503);
            answer.body["error"].as_str().is_some_and(|error| error.contains(word))
        };
        until(&format!("the gateway names {word}"), told).await;
    }

    load.answers(50).await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn a_broken_change_leaves_the_old_revision_serving_and_says_so() {
    let modelway = Modelway::up().await;
    let models = modelway.models();
    let id = modelway.deploy("iris", &models.iris("iris"), 1).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 2);
    let url = modelway.control(&format!("/v1/modelDeployment/{id}"));
    let folder = models.broken("broken");
    let change = json!({"model": {"version": "2", "bucket": folder.parent().unwrap(), "prefix": "broken"}});
    assert_eq!(modelway.ask(Method::PATCH, &url, change).await.status, 200);
    let degraded = modelway
        .until_deployment(id, "it says what is wrong", |d| {
            d.status.state == api::State::Degraded && d.status.error.is_some()
        })
        .await
        .status;
    assert_eq!(degraded.serving_revision.unwrap().0, 1);
    assert_eq!(degraded.error.unwrap().revision.0, 2);

    let back = json!({"model": {"version": "1", "prefix": "iris"}});
    assert_eq!(modelway.ask(Method::PATCH, &url, back).await.status, 200);
    modelway.until_active(id).await;
    load.answers(50).await;
    load.stop().await.assert_flawless();
}

#[tokio::test]
async fn every_fault_of_a_payload_is_named_at_once() {
    let modelway = Modelway::up().await;
    let body = json!({"replica": 1, "model": {"bucket": "/x", "version": "1"}, "limit_res": {"cpu": "1"}, "request_res": {"cpu": "2"}});
    let answer = modelway.ask(Method::POST, &modelway.control("/v1/modelDeployment"), body).await;
    assert_eq!(answer.status, 422);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let pointers: Vec<_> =
        answer.body["faults"].as_array().unwrap().iter().map(|f| f["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/request_res/cpu", "/replica"], "{answer:#?}");
    for (method, path, status) in [
        (Method::GET, "/v1/modelDeployment/999", 404),
        (Method::GET, "/v1/modelDeployment/x", 404),
        (Method::GET, "/v1/modelDeploymint", 404),
        (Method::POST, "/v1/modelDeployment/1", 405),
        (Method::GET, "/v1/modelDeployment?limt=1", 400),
    ] {
        let answer = modelway.ask(method, &modelway.control(path), Value::Null).await;
        assert_eq!(answer.status, status, "{path}: {answer:#?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
    }
}

#[tokio::test]
async fn a_wrong_request_is_told_what_is_wrong_with_it() {
    let modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 1).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let url = modelway.infer_url("iris");
    let tensor = |name: &str, shape: Value, datatype: &str, data: Value| json!({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]});
    for (body, words) in [
        (tensor("imput", json!([1, 4]), "FP32", json!([1, 2, 3, 4])), "input"),
        (tensor("input", json!([1, 3]), "FP32", json!([1, 2, 3])), "shape"),
        (tensor("input", json!([1, 4]), "INT64", json!([1, 2, 3, 4])), "FP32"),
        (tensor("input", json!([1, 4]), "FP99", json!([1, 2, 3, 4])), "FP99"),
        (tensor("input", json!([1, 4]), "FP32", json!([1, 2, 3])), "3"),
        (tensor("input", json!([1, 4]), "FP32", json!([1, 2, "x", 4])), "input"),
        (json!({"input": []}), "inputs"),
    ] {
        let answer = modelway.ask(Method::POST, &url, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:#?}");
        assert!(answer.body["error"].as_str().unwrap().contains(words), "{body}: {answer:#?}");
    }
    let client = client();
    let truncated = client
        .post(&url)
        .header("inference-header-content-length", "94")
        .header("content-type", "application/octet-stream")
        .body(
            &br#"{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}xx"#
                [..],
        )
        .send()
        .await
        .unwrap();
    assert_eq!(truncated.status(), 400);
    modelway.until_predicts("iris").await;
}

#[tokio::test]
async fn a_gigabyte_is_refused_in_bounded_memory() {
    let modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 1).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let url = modelway.infer_url("iris");
    let chunk = vec![b' '; 1 << 20];
    for announced in [true, false] {
        let chunks = futures::stream::iter((0..1024).map({
            let chunk = chunk.clone();
            move |_| Ok::<_, std::io::Error>(chunk.clone())
        }));
        let mut request = client().post(&url).body(Body::wrap_stream(chunks));
        if announced {
            request = request.header("content-length", (1_u64 << 30).to_string());
        }
        // The refusal comes while we still send, so the connection may break before the answer is read.
        if let Ok(answer) = request.send().await {
            assert_eq!(answer.status(), 413);
        }
    }
    let peak = peak_memory(modelway.pid(Role::Up)).max(peak_memory(modelway.replica_pids()[0]));
    assert!(peak < 400 << 20, "{} MiB", peak >> 20);
    modelway.until_predicts("iris").await;
}

#[tokio::test]
async fn slow_clients_and_ten_thousand_idle_connections_leave_room_for_everyone_else() {
    let modelway = Modelway::up().await;
    let id = modelway.deploy("iris", &modelway.models().iris("iris"), 1).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let wanted = raise_open_files().saturating_sub(1_000).min(10_000);
    let address = format!("127.0.0.1:{}", modelway.ports.gateway);
    let mut idle = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.write_all(b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();

    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 4);
    load.answers(200).await;
    load.stop().await.assert_flawless();

    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(90), slow.read_to_end(&mut answer))
        .await
        .expect("a slow client is cut off")
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    drop(idle);
}

#[tokio::test]
async fn a_full_disk_is_said_and_what_runs_goes_on() {
    let mut modelway = Modelway::new();
    let small = SmallDisk::mount(&modelway.data_dir());
    modelway.start(Role::Up).await;
    let models = modelway.models();
    let id = modelway.deploy("iris", &models.iris("iris"), 1).await;
    modelway.until_active(id).await;
    modelway.until_predicts("iris").await;
    let load = Load::start(&modelway.infer_url("iris"), &modelway.iris_body(), 2);
    small.fill();

    let url = modelway.control("/v1/modelDeployment");
    let folder = models.digits("digits");
    let mut refused = None;
    for n in 0..2_000 {
        let body = json!({"name": format!("d{n}"), "replicas": 0, "model": {"version": "1", "bucket": folder}, "labels": {"pad": "x".repeat(200)}});
        let answer = modelway.ask(Method::POST, &url, body).await;
        if answer.status != 201 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the disk is full at last");
    assert_eq!(refused.status, 503, "{refused:#?}");
    assert!(
        refused.body["detail"].as_str().unwrap().contains("the disk that holds the database is full"),
        "{refused:#?}"
    );
    assert_eq!(refused.body["code"], "database_unavailable");
    load.answers(100).await;
    load.stop().await.assert_flawless();

    let [replica] = modelway.replica_pids()[..] else { panic!("one replica") };
    for _ in 0..2 {
        small.fill();
        let [victim] = modelway.replica_pids()[..] else { panic!("one replica") };
        kill(victim, Signal::KILL);
        until("another replica runs", || async { matches!(modelway.replica_pids()[..], [pid] if pid != victim) }).await;
        modelway.until_predicts("iris").await;
    }
    assert!(!modelway.replica_pids().contains(&replica));

    small.free();
    until("it takes deployments again", || async {
        let body = json!({"replicas": 0, "model": {"version": "1", "bucket": folder}});
        modelway.ask(Method::POST, &url, body).await.status == 201
    })
    .await;
    let told = |d: &api::Deployment| d.status.replica_status.first().is_some_and(|replica| replica.restarts >= 2);
    modelway.until_deployment(id, "what happened meanwhile is known", told).await;
    modelway.until_active(id).await;
    assert!(modelway.stop(Role::Up).await.success());
}
