//! What the gateway knows, keeps and tells: the watch, the table on disk, records and metrics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::path::Path;

use api::{deployment::LogPayloads, route::form1::Route};
use harness::{Control, Gateway, Manner, Replica, config, eventually, folder, route, table_in};
use modelway_gateway::Config;

async fn saved(path: &Path, holds: impl Fn(&str) -> bool) {
    eventually("the table to be on disk", || async {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if holds(&text) { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test]
async fn predictions_go_on_without_a_control_plane_also_after_a_restart() {
    let folder = folder();
    let table = table_in(folder.path());
    let replica = Replica::start("a", Manner::Well).await;
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&replica])));
    let config = Config { control_url: control.url(), table_file: Some(table.clone()), ..config() };
    let gateway = Gateway::with(config.clone()).await;
    gateway.until_known("iris").await;
    saved(&table, |text| text.contains("iris")).await;
    let addr = control.addr.to_string();
    control.stop().await;
    gateway.until("the loss to be noticed", "/metrics", |text| text.contains("watch_connected 0")).await;
    assert_eq!(gateway.infer("iris").await.0, 200);
    gateway.stop().await;

    let gateway = Gateway::with(config).await;
    assert_eq!(gateway.get("/v2/health/ready").await.0, 200, "it serves at once");
    assert_eq!(gateway.infer("iris").await.0, 200);

    // The control plane comes back with another database, which has another deployment.
    let control = Control::start_at(&addr, "two").await;
    control.set(9, Some(route("new", &[&replica])));
    gateway.until_known("new").await;
    assert_eq!(gateway.infer("new").await.0, 200);
    assert_eq!(gateway.infer("iris").await.0, 404, "what the other database had is forgotten");
    saved(&table, |text| text.contains("\"new\"") && !text.contains("iris")).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_watch_that_breaks_off_is_taken_up_where_it_ended() {
    let replica = Replica::start("a", Manner::Well).await;
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&replica])));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("iris").await;
    let addr = control.addr.to_string();
    control.stop().await;
    // The same database: only what came after is said, and what is known stays.
    let control = Control::start_at(&addr, "one").await;
    control.set(5, Some(route("older", &[&replica])));
    control.set(6, Some(route("newer", &[&replica])));
    gateway.until_known("newer").await;
    assert_eq!(gateway.infer("iris").await.0, 200);
    control.set(6, None);
    gateway.until("it to go", "/v1/models", |text| !text.contains("newer")).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_damaged_table_is_no_reason_not_to_start() {
    let folder = folder();
    let table = folder.path().join("routes.json");
    std::fs::write(&table, "{\"form\":1,").unwrap();
    let replica = Replica::start("a", Manner::Well).await;
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&replica])));
    let gateway = Gateway::with(Config { control_url: control.url(), table_file: Some(table), ..config() }).await;
    gateway.until_known("iris").await;
    assert_eq!(gateway.infer("iris").await.0, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_disk_that_takes_nothing_disturbs_no_prediction() {
    // A file stands where the folders should be: as with a full disk, every write fails.
    let folder = folder();
    let blocked = folder.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let replica = Replica::start("a", Manner::Well).await;
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&replica])));
    let (table_file, predictions_dir) = (Some(blocked.join("routes.json")), Some(blocked.join("predictions")));
    let gateway = Gateway::with(Config { control_url: control.url(), table_file, predictions_dir, ..config() }).await;
    gateway.until_known("iris").await;
    assert_eq!(gateway.infer("iris").await.0, 200);
    let lost = "modelway_gateway_records_dropped_total 1";
    gateway.until("the record to be counted as lost", "/metrics", |text| text.contains(lost)).await;
    assert_eq!(gateway.infer("iris").await.0, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn every_prediction_leaves_a_record_and_payloads_only_where_asked() {
    let folder = folder();
    let replica = Replica::start("a", Manner::Well).await;
    let control = Control::start().await;
    control.set(1, Some(route("quiet", &[&replica])));
    control.set(2, Some(Route { log_payloads: LogPayloads::All, ..route("open", &[&replica]) }));
    let predictions = folder.path().join("predictions");
    let gateway = Gateway::with(Config {
        control_url: control.url(),
        predictions_dir: Some(predictions.clone()),
        record_payload_bytes: 8,
        ..config()
    })
    .await;
    gateway.until_known("open").await;
    let (_, headers, _) = gateway.infer("quiet").await;
    let id = headers["x-request-id"].to_str().unwrap().to_owned();
    gateway.post("/v1/models/open:predict", "{\"instances\":[1]}").await;
    assert_eq!(gateway.get("/v2/models/quiet").await.0, 200, "no prediction");
    gateway.stop().await;

    let mut lines = Vec::new();
    for file in std::fs::read_dir(&predictions).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        lines.extend(text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()));
    }
    lines.sort_by_key(|line| line["deployment"].to_string());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["id"], id.as_str());
    assert_eq!(lines[0]["deployment"], "md-1");
    assert_eq!((&lines[0]["revision"], &lines[0]["code"]), (&1.into(), &200.into()));
    assert_eq!((&lines[0]["replica"], &lines[0]["kind"]), (&"a".into(), &"infer".into()));
    assert!(lines[0]["latency_us"].as_u64().unwrap() > 0);
    lines[0]["time"].as_str().unwrap().parse::<api::Timestamp>().unwrap();
    assert!(lines[0].get("input").is_none(), "{}", lines[0]);
    assert_eq!(lines[1]["input"], serde_json::json!({"bytes": 17, "truncated": true, "text": "{\"instan"}));
    assert_eq!(lines[1]["output"]["truncated"], true);
}

#[tokio::test]
async fn metrics_tell_of_deployments_and_replicas_that_are_there_and_of_no_others() {
    let (_replica, control, gateway) = Gateway::simple(Manner::Well).await;
    for _ in 0..3 {
        gateway.infer("iris").await;
    }
    gateway.infer("nobody").await;
    let (_, _, text) = gateway.get("/metrics").await;
    for line in [
        "modelway_gateway_requests_total{deployment=\"md-1\",revision=\"1\",code=\"200\"} 3",
        "modelway_gateway_request_duration_seconds_count{deployment=\"md-1\",revision=\"1\"} 3",
        "modelway_gateway_requests_in_flight{deployment=\"md-1\"} 0",
        "modelway_replica_cpu_seconds_total{deployment=\"md-1\",replica=\"a\"} 1.5",
        "modelway_replica_memory_bytes{deployment=\"md-1\",replica=\"a\"} 4096",
        "modelway_gateway_refused_total{reason=\"model\"} 1",
        "modelway_gateway_routes 1",
        "modelway_gateway_watch_connected 1",
        "modelway_gateway_added_latency_seconds_bucket{le=\"+Inf\",thread=\"0\"}",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    assert!(!text.contains("nobody"), "a stranger's name makes no series");
    control.set(1, None);
    gateway.until("it to go", "/v1/models", |text| !text.contains("iris")).await;
    let (_, _, text) = gateway.get("/metrics").await;
    assert!(!text.contains("md-1"), "{text}");
    gateway.stop().await;
}
