//! Two control planes over one database.

use modelway_control::Config;
use reqwest::Method;
use serde_json::json;
use store::Store;

use crate::support::{PATIENCE, Plane, answer, plane_over, sample, sample_with};

const PATH: &str = "/v1/modelDeployment";

async fn two() -> (Plane, Plane, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("modelway.db").display());
    let open = || async { Store::open(&url, PATIENCE).await.expect("a database") };
    let one = plane_over(open().await, Config::default()).await;
    let other = plane_over(open().await, Config::default()).await;
    (one, other, folder)
}

#[tokio::test]
async fn what_one_wrote_the_other_reads_at_once() {
    let (one, other, _folder) = two().await;
    let id = one.create(&json!({"name": "iris"})).await;
    let path = format!("{PATH}/{id}");
    let read = other.get(&path).await;
    assert_eq!((read.status.as_u16(), &read.body["name"]), (200, &json!("iris")));
    other.post(PATH, &sample_with(&json!({"name": "iris"}))).await.refused(409, "name_taken");

    let tag = read.header("etag").to_owned();
    assert_eq!(other.patch(&path, &json!({"replicas": 5})).await.status, 200);
    let late = one.request(Method::PATCH, &path).header("if-match", tag).json(&json!({"replicas": 6}));
    answer(late).await.refused(412, "stale");
    assert_eq!(one.get(&path).await.body["replicas"], 5);
}

#[tokio::test]
async fn a_post_that_is_repeated_at_the_other_one_makes_nothing_twice() {
    let (one, other, _folder) = two().await;
    let post = |plane: &Plane| answer(plane.request(Method::POST, PATH).header("idempotency-key", "k").json(&sample()));
    let (first, second) = tokio::join!(post(&one), post(&other));
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201), "{} {}", first.body, second.body);
    assert_eq!(first.body["id"], second.body["id"]);
}

#[tokio::test]
async fn ids_are_given_once_by_both() {
    let (one, other, _folder) = two().await;
    let made = (0..10).map(|n| {
        let plane = if n % 2 == 0 { &one } else { &other };
        async move { plane.create(&json!({})).await }
    });
    let mut ids = futures::future::join_all(made).await;
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10);
    let listed = other.get(PATH).await;
    assert_eq!(listed.body["items"].as_array().map(Vec::len), Some(10));
}

#[tokio::test]
async fn one_goes_on_when_the_other_ends() {
    let (one, other, _folder) = two().await;
    let id = one.create(&json!({})).await;
    one.tasks.stop();
    tokio::time::timeout(PATIENCE, one.ended).await.expect("it ends").expect("without a panic").expect("in good order");
    assert_eq!(other.get(&format!("{PATH}/{id}")).await.status, 200);
}
