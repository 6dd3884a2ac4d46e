//! Changing and deleting, and what happens when two do it at once.

use reqwest::Method;
use serde_json::json;

use crate::support::{answer, plane, sample, sample_with};

fn path(id: i64) -> String {
    format!("/v1/modelDeployment/{id}")
}

#[tokio::test]
async fn put_replaces_the_whole_specification_and_keeps_the_id() {
    let plane = plane().await;
    let id = plane.create(&json!({"name": "iris", "env": {"A": "1"}})).await;
    let changed = plane.put(&path(id), &sample_with(&json!({"replicas": 3}))).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(changed.body["id"], id);
    assert_eq!(changed.body["replicas"], 3);
    assert_eq!(changed.body.get("name"), None, "what is left out gets its default");
    assert_eq!(changed.body["env"], json!({}));
    plane.put(&path(4711), &sample()).await.refused(404, "not_found");
    plane.put(&path(id), &json!({"replicas": 1})).await.refused(422, "invalid_payload");
}

#[tokio::test]
async fn patch_changes_what_it_names_and_null_removes() {
    let plane = plane().await;
    let id = plane.create(&json!({"name": "iris", "env": {"A": "1", "B": "2"}})).await;
    let patch = json!({"env": {"A": null, "C": "3"}, "name": null, "limit_res": {"cpu": "2"}});
    let changed = plane.patch(&path(id), &patch).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(changed.body["env"], json!({"B": "2", "C": "3"}));
    assert_eq!(changed.body.get("name"), None);
    assert_eq!(changed.body["limit_res"], json!({"cpu": "2", "memory": "1Gi"}));
    assert_eq!(changed.body["model"], sample()["model"]);
    let revision = |answer: &crate::support::Answer| answer.body["revision"].as_i64();
    assert_eq!(revision(&changed), Some(2), "what runs has changed");
    assert_eq!(
        revision(&plane.patch(&path(id), &json!({"labels": {"a": "b"}})).await),
        Some(2),
        "labels change nothing that runs"
    );

    let refusal = plane.patch(&path(id), &json!({"limit_res": {"cpu": "1m"}, "status": "active"})).await;
    refusal.refused(422, "invalid_payload");
    assert_eq!(refusal.fault_pointers(), ["/request_res/cpu", "/status"]);
    plane.patch(&path(id), &json!([1])).await.refused(422, "invalid_payload").saying("merge patch");
}

#[tokio::test]
async fn patch_takes_both_of_its_content_types() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    for kind in ["application/json; charset=utf-8", "application/merge-patch+json"] {
        let request = plane.request(Method::PATCH, &path(id)).header("content-type", kind).body(r#"{"replicas":2}"#);
        assert_eq!(answer(request).await.status, 200, "{kind}");
    }
    let request =
        plane.request(Method::PATCH, &path(id)).header("content-type", "application/json-patch+json").body("[]");
    answer(request).await.refused(415, "unsupported_media_type").saying("application/merge-patch+json");
}

#[tokio::test]
async fn scaling_sets_the_replicas_and_makes_no_revision() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    let scaled = plane.put(&format!("{}/scale", path(id)), &json!({"replicas": 0})).await;
    assert_eq!(scaled.status, 200, "{}", scaled.body);
    assert_eq!((&scaled.body["replicas"], &scaled.body["revision"]), (&json!(0), &json!(1)));
    for wrong in [json!({"replicas": 1001}), json!({}), json!({"replicas": 1, "max": 3})] {
        plane.put(&format!("{}/scale", path(id)), &wrong).await.refused(422, "invalid_payload");
    }
}

#[tokio::test]
async fn a_change_thought_out_on_an_old_state_is_refused() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    let tag = plane.get(&path(id)).await.header("etag").to_owned();
    let change = |method: Method, path: String, tag: &str, body: serde_json::Value| {
        let request = plane.request(method, &path).header("if-match", tag).json(&body);
        async { answer(request).await }
    };
    let changed = change(Method::PATCH, path(id), &tag, json!({"replicas": 2})).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_ne!(changed.header("etag"), tag);
    change(Method::PATCH, path(id), &tag, json!({"replicas": 3})).await.refused(412, "stale");
    change(Method::PUT, path(id), &tag, sample()).await.refused(412, "stale");
    change(Method::PUT, format!("{}/scale", path(id)), &tag, json!({"replicas": 3})).await.refused(412, "stale");
    change(Method::DELETE, path(id), &tag, json!({})).await.refused(412, "stale");
    change(Method::PATCH, path(id), "3", json!({"replicas": 3})).await.refused(400, "invalid_header").saying("ETag");
    assert_eq!(plane.get(&path(id)).await.body["replicas"], 2);

    let newest = plane.get(&path(id)).await.header("etag").to_owned();
    plane.activate(id).await;
    assert_eq!(plane.get(&path(id)).await.header("etag"), newest, "a worker's report is no change of what is wanted");
    assert_eq!(change(Method::PATCH, path(id), "*", json!({"replicas": 4})).await.status, 200);
    let newest = plane.get(&path(id)).await.header("etag").to_owned();
    let either = format!("{tag}, {newest}");
    assert_eq!(change(Method::DELETE, path(id), &either, json!({})).await.status, 202);
}

#[tokio::test]
async fn of_many_patches_at_once_none_is_lost() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    let url = path(id);
    let patches = (0..4).map(|n| {
        let (plane, url) = (&plane, &url);
        async move { plane.patch(url, &json!({"labels": {format!("k{n}"): "v"}})).await }
    });
    for changed in futures::future::join_all(patches).await {
        assert_eq!(changed.status, 200, "{}", changed.body);
    }
    assert_eq!(plane.get(&url).await.body["labels"], json!({"k0": "v", "k1": "v", "k2": "v", "k3": "v"}));
}

#[tokio::test]
async fn deleting_answers_at_once_and_frees_the_name() {
    let plane = plane().await;
    let id = plane.create(&json!({"name": "iris"})).await;
    plane.activate(id).await;
    let deleted = plane.delete(&path(id)).await;
    assert_eq!(deleted.status, 202, "{}", deleted.body);
    assert_eq!(deleted.body["status"], "deleting");
    assert_eq!(plane.get(&path(id)).await.body["status"], "deleting");
    assert_eq!(plane.delete(&path(id)).await.status, 202, "deleting again changes nothing");
    plane.patch(&path(id), &json!({"replicas": 2})).await.refused(409, "deleting");
    plane.create(&json!({"name": "iris"})).await;
    plane.delete(&path(4711)).await.refused(404, "not_found");
}
