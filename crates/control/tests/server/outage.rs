//! The database goes away and comes back; and PostgreSQL under two control planes.

use modelway_control::Config;
use reqwest::Method;
use serde_json::json;
use store::Store;

use crate::{
    postgres::{Postgres, Wire},
    support::{PATIENCE, answer, plane_over, sample},
    watch::Gateway,
};

const PATH: &str = "/v1/modelDeployment";

#[tokio::test]
async fn without_its_database_it_lives_says_so_and_recovers() {
    let postgres = Postgres::start();
    let wire = Wire::to(&postgres).await;
    let store = Store::open(&wire.url(), PATIENCE).await.expect("a database");
    let plane = plane_over(store, Config { watch_heartbeat_ms: 100, ..Config::default() }).await;
    plane.create(&json!({})).await;
    let mut gateway = Gateway::watch(&plane, "").await;
    gateway.sync().await;

    wire.cut().await;
    let refusal = plane.get(PATH).await;
    refusal.refused(503, "database_unavailable").saying("repeat the request");
    assert_eq!(refusal.header("retry-after"), "1");
    assert_eq!(plane.get("/health/live").await.status, 200);
    plane.get("/health/ready").await.refused(503, "database_unavailable");
    let metrics = plane.get("/metrics").await;
    assert!(metrics.body.as_str().is_some_and(|text| text.contains("modelway_control_store_up 0")), "{}", metrics.body);
    assert_eq!(gateway.sync().await, 0, "the watch goes on");

    wire.mend().await;
    let recovered = async {
        while plane.get("/health/ready").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.expect("it is ready again");
    let id = plane.create(&json!({})).await;
    gateway.until(|table| table.contains_key(&id)).await;
}

#[tokio::test]
async fn two_control_planes_share_a_postgresql() {
    let postgres = Postgres::start();
    let open = || async { Store::open(&postgres.url(), PATIENCE).await.expect("a database") };
    let (one, other) = tokio::join!(open(), open());
    let one = plane_over(one, Config::default()).await;
    let other = plane_over(other, Config::default()).await;
    let mut gateway = Gateway::watch(&other, "").await;
    gateway.sync().await;

    let post = |plane: &crate::support::Plane| {
        answer(plane.request(Method::POST, PATH).header("idempotency-key", "k").json(&sample()))
    };
    let (first, second) = tokio::join!(post(&one), post(&other));
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201), "{} {}", first.body, second.body);
    assert_eq!(first.body["id"], second.body["id"]);
    let id = one.create(&json!({"name": "iris"})).await;
    gateway.until(|table| table.contains_key(&id)).await;
    assert_eq!(other.get(&format!("{PATH}?name=iris")).await.body["items"][0]["id"], id);
    let changes = (0..6).map(|n| {
        let plane = if n % 2 == 0 { &one } else { &other };
        async move { plane.patch(&format!("{PATH}/{id}"), &json!({"labels": {format!("k{n}"): "v"}})).await }
    });
    for changed in futures::future::join_all(changes).await {
        assert_eq!(changed.status, 200, "{}", changed.body);
    }
    let labels = one.get(&format!("{PATH}/{id}")).await.body["labels"].clone();
    assert_eq!(labels.as_object().map(serde_json::Map::len), Some(6), "none is lost: {labels}");
}
