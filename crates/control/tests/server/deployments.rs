//! Creating, reading, listing.

use std::time::Duration;

use base::Clock;
use modelway_control::Config;
use reqwest::Method;
use serde_json::{Value, json};
use store::WorkerRecord;

use crate::support::{answer, observe, plane, plane_with, purge, sample, sample_with};

const PATH: &str = "/v1/modelDeployment";

#[tokio::test]
async fn the_public_sample_works_to_the_letter() {
    let plane = plane_with(Config { gateway_url: "https://DP_DNS".into(), ..Config::default() }).await;
    let made = plane.post(PATH, &sample()).await;
    assert_eq!(made.status, 201);
    let id = made.body["id"].as_i64().expect("an integer id");
    assert_eq!(made.header("location"), format!("{PATH}/{id}"));
    assert_eq!(made.header("etag"), "\"g1\"");
    assert_eq!(made.body["status"], "pending");
    assert_eq!(made.body["url"], Value::Null, "nothing serves yet");

    plane.activate(id).await;
    let read = plane.get(&format!("{PATH}/{id}")).await;
    assert_eq!(read.status, 200);
    assert_eq!(read.body["status"], "active");
    assert_eq!(read.body["url"], format!("https://DP_DNS/v2/models/md-{id}/infer"));
    for (field, value) in sample().as_object().expect("an object") {
        assert_eq!(&read.body[field], value, "{field}");
    }
    for field in ["created_at", "updated_at"] {
        let time = read.body[field].as_str().expect(field);
        let form: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(form, "0000-00-00T00:00:00.000000", "{time}");
    }
}

#[tokio::test]
async fn an_id_is_a_number_or_the_data_planes_name() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    assert_eq!(plane.get(&format!("{PATH}/md-{id}")).await.body["id"], id);
    plane.get(&format!("{PATH}/iris")).await.refused(404, "not_found").saying("?name=");
    plane.get(&format!("{PATH}/4711")).await.refused(404, "not_found").saying("4711");
}

#[tokio::test]
async fn a_deployment_keeps_all_that_was_said_of_it() {
    let plane = plane().await;
    let fields = json!({
        "name": "iris", "labels": {"team": "red"}, "replicas": 0, "env": {"A": "1"},
        "request_timeout_ms": 1500, "idempotent": false, "log_payloads": "sample"
    });
    let id = plane.create(&fields).await;
    let read = plane.get(&format!("{PATH}/{id}")).await;
    for (field, value) in fields.as_object().expect("an object") {
        assert_eq!(&read.body[field], value, "{field}");
    }
}

#[tokio::test]
async fn a_name_is_given_once() {
    let plane = plane().await;
    plane.create(&json!({"name": "iris"})).await;
    plane.post(PATH, &sample_with(&json!({"name": "iris"}))).await.refused(409, "name_taken").saying("iris");
}

#[tokio::test]
async fn a_placement_that_no_worker_serves_is_said_and_a_placement_does_not_change() {
    let plane = plane_with(Config { default_placement: "east".into(), ..Config::default() }).await;
    let seen = async |id: &str, placement: &str| {
        let (id, placement, scope) = (id.to_owned(), placement.to_owned(), placement.to_owned());
        let seen_at = Clock::system().now().into();
        let worker = WorkerRecord { id, placement, scope, address: "127.0.0.1:1".into(), seen_at };
        plane.store.worker_seen(&worker, Duration::from_secs(60)).await.expect("it is registered");
    };
    let id = plane.create(&json!({})).await;
    let path = format!("{PATH}/{id}");
    let shown = async || plane.get(&path).await.body;
    assert_eq!((&shown().await["placement"], &shown().await["error"]["code"]), (&json!("east"), &json!("no_worker")));
    seen("a", "west").await;
    let error = shown().await["error"].clone();
    assert_eq!(error["code"], "no_worker");
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("`east`") && message.contains("served are `west`"), "{message}");
    assert_eq!(plane.get(PATH).await.body["items"][0]["error"], error, "a list says it too");

    plane.patch(&path, &json!({"placement": "west"})).await.refused(422, "invalid_payload").saying("`east`");
    plane.put(&path, &sample_with(&json!({"placement": "west"}))).await.refused(422, "invalid_payload");
    assert_eq!(plane.put(&path, &sample_with(&json!({"replicas": 2}))).await.body["placement"], "east");

    seen("b", "east").await;
    assert_eq!(shown().await["error"], Value::Null);
    plane.activate_in("east", id).await;
    assert_eq!(shown().await["notes"], json!([]));
    plane.store.worker_gone("b").await.expect("it is gone");
    let notes = shown().await["notes"].clone();
    assert!(notes[0].as_str().is_some_and(|note| note.contains("`east`")), "{notes}");
}

#[tokio::test]
async fn repeating_a_post_with_its_idempotency_key_makes_nothing_twice() {
    let plane = plane().await;
    let post = |key: &str, body: &Value| {
        let request = plane.request(Method::POST, PATH).header("idempotency-key", key).json(body);
        async { answer(request).await }
    };
    let first = post("k1", &sample()).await;
    // The same payload, its fields in another order.
    let mut turned = serde_json::Map::new();
    for (field, value) in sample().as_object().expect("an object").iter().rev() {
        turned.insert(field.clone(), value.clone());
    }
    let again = post("\"k1\"", &Value::Object(turned)).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.body["id"], again.body["id"]);
    assert_eq!(first.header("location"), again.header("location"));
    post("k1", &sample_with(&json!({"replicas": 2}))).await.refused(422, "idempotency_key_reused");
    assert_ne!(post("k2", &sample()).await.body["id"], first.body["id"]);
    post(&"x".repeat(256), &sample()).await.refused(400, "invalid_header").saying("255");
    post("a\tb", &sample()).await.refused(400, "invalid_header").saying("control character");
    let list = plane.get(PATH).await;
    assert_eq!(list.body["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn every_fault_of_a_payload_is_reported_at_once_with_its_pointer() {
    let plane = plane().await;
    let wrong = json!({
        "replica": 1, "model": {"version": "v1", "bucket": "b", "type": "many"}, "replicas": -1,
        "request_res": {"cpu": "2", "memory": "much"}, "limit_res": {"cpu": "1"}
    });
    let refusal = plane.post(PATH, &wrong).await;
    refusal.refused(422, "invalid_payload").saying("6 faults");
    let pointers = ["/model/bucket", "/model/type", "/replica", "/replicas", "/request_res/cpu", "/request_res/memory"];
    assert_eq!(refusal.fault_pointers(), pointers);
    assert_eq!(plane.get(PATH).await.body["items"], json!([]), "nothing was made");
}

#[tokio::test]
async fn a_list_comes_in_pages_and_filters_hold_together() {
    let plane = plane().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let team = if n % 2 == 0 { "red" } else { "blue" };
        ids.push(plane.create(&json!({"name": format!("m{n}"), "labels": {"team": team, "n": format!("{n}")}})).await);
    }
    plane.activate(ids[2]).await;
    let listed = |answer: &crate::support::Answer| -> Vec<i64> {
        let items = answer.body["items"].as_array().expect("a list");
        items.iter().map(|item| item["id"].as_i64().expect("an id")).collect()
    };

    let mut seen = Vec::new();
    let mut path = format!("{PATH}?limit=2");
    loop {
        let page = plane.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(listed(&page).len() <= 2);
        seen.extend(listed(&page));
        let Some(next) = page.body["next"].as_i64() else { break };
        path = format!("{PATH}?limit=2&after={next}");
    }
    assert_eq!(seen, ids);

    assert_eq!(listed(&plane.get(&format!("{PATH}?label=team=red")).await), [ids[0], ids[2], ids[4]]);
    assert_eq!(listed(&plane.get(&format!("{PATH}?label=team%3Dred&label=n=4")).await), [ids[4]]);
    assert_eq!(listed(&plane.get(&format!("{PATH}?name=m1")).await), [ids[1]]);
    assert_eq!(listed(&plane.get(&format!("{PATH}?status=active")).await), [ids[2]]);
    assert_eq!(listed(&plane.get(&format!("{PATH}?status=active&label=team=blue")).await), [] as [i64; 0]);
}

#[tokio::test]
async fn an_unknown_parameter_of_a_query_is_refused_with_the_nearest_one() {
    let plane = plane().await;
    let refusal = plane.get(&format!("{PATH}?stauts=active&limit=0&label=x")).await;
    refusal.refused(400, "invalid_query");
    assert_eq!(refusal.fault_pointers(), ["?label", "?limit", "?stauts"]);
    assert!(refusal.body.to_string().contains("did you mean `status`?"));
    plane.get(&format!("{PATH}/1?verbose=1")).await.refused(400, "invalid_query").saying("has no parameters");
    plane.post(&format!("{PATH}?dry_run=1"), &sample()).await.refused(400, "invalid_query");
}

#[tokio::test]
async fn events_tell_what_happened_to_a_deployment() {
    let plane = plane().await;
    let (one, two) = (plane.create(&json!({})).await, plane.create(&json!({})).await);
    let events = plane.get(&format!("{PATH}/{one}/events")).await;
    let items = events.body["items"].as_array().expect("a list");
    assert_eq!(items[0]["kind"], "created");
    assert!(items.iter().all(|event| event["deployment"] == one));
    let all = plane.get("/v1/events?limit=1000").await;
    let deployments: Vec<_> =
        all.body["items"].as_array().expect("a list").iter().map(|event| event["deployment"].clone()).collect();
    assert!(deployments.contains(&json!(one)) && deployments.contains(&json!(two)));
    let of_two = plane.get(&format!("/v1/events?deployment=md-{two}")).await;
    assert!(of_two.body["items"].as_array().expect("a list").iter().all(|event| event["deployment"] == two));
    plane.get(&format!("{PATH}/4711/events")).await.refused(404, "not_found");
    plane.put(&format!("{PATH}/{one}/scale"), &json!({"replicas": 3})).await;
    let newest = plane.get(&format!("{PATH}/{one}/events?order=desc&limit=1")).await;
    assert_eq!(newest.body["items"][0]["kind"], "scaled", "{}", newest.body);
    let before = plane.get(&format!("{PATH}/{one}/events?order=desc&after={}", newest.body["next"])).await;
    assert_eq!(before.body["items"][0]["kind"], "created", "{}", before.body);
    plane.get("/v1/events?order=newest").await.refused(400, "invalid_query").saying("`desc`");
}

#[tokio::test]
async fn a_failed_deployment_says_why_with_its_last_log_lines() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    observe(&plane.store, id, api::State::Failed).await;
    let read = plane.get(&format!("{PATH}/{id}")).await;
    assert_eq!((&read.body["status"], &read.body["url"]), (&json!("failed"), &Value::Null));
    let error =
        json!({"code": "crash_loop", "message": "the replica ended 3 times", "revision": 1, "log": ["no such file"]});
    assert_eq!(read.body["error"], error);
}

#[tokio::test]
async fn a_deployment_that_is_gone_leaves_its_events_and_its_idempotency_key() {
    let plane = plane().await;
    let post = || answer(plane.request(Method::POST, PATH).header("idempotency-key", "k").json(&sample()));
    let id = post().await.body["id"].as_i64().expect("an id");
    let path = format!("{PATH}/{id}");
    plane.delete(&path).await;
    purge(&plane.store, id).await;
    plane.get(&path).await.refused(404, "not_found");
    let events = plane.get(&format!("{path}/events")).await;
    assert_eq!(events.body["items"][0]["kind"], "created");
    post().await.refused(410, "gone").saying("use a new key");
}

#[tokio::test]
async fn revisions_show_what_ran_what_serves_and_what_is_wanted() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    plane.activate(id).await;
    let path = format!("{PATH}/{id}/revisions");
    let item = |number: u32, wanted: bool, serving: bool| (json!(number), json!(wanted), json!(serving));
    let shown = async || {
        let list = plane.get(&path).await;
        assert_eq!(list.status, 200, "{}", list.body);
        let items = list.body["items"].as_array().expect("a list").clone();
        items
            .into_iter()
            .map(|item| (item["number"].clone(), item["wanted"].clone(), item["serving"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(shown().await, [item(1, true, true)]);
    assert_eq!(plane.patch(&format!("{PATH}/{id}"), &json!({"model": {"version": "v2"}})).await.status, 200);
    assert_eq!(shown().await, [item(2, true, false), item(1, false, true)]);
    let newest = &plane.get(&path).await.body["items"][0];
    assert_eq!(newest["model_version"], "v2");
    assert_eq!(newest["content"]["artifact"]["uris"][0], "s3://demmodels/models/v2");
    let created_at = newest["created_at"].as_str().expect("a time");
    assert!(created_at.len() == 27 && created_at.ends_with('Z'), "{created_at}");
    plane.activate(id).await;
    assert_eq!(shown().await, [item(2, true, true), item(1, false, false)]);
    plane.get(&format!("{PATH}/4711/revisions")).await.refused(404, "not_found");
}
