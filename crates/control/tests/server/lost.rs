//! What gateways tell of lost requests becomes events.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Plane, answer, plane, sample};

async fn tell(plane: &Plane, lost: Value) -> crate::support::Answer {
    answer(plane.request(Method::POST, "/v1/routes/lost").json(&lost)).await
}

fn lost(key: &str, deployment: i64) -> Value {
    json!({
        "key": key, "deployment": deployment, "revision": 1, "replica": "md-1-r1-1", "how": "broke_off", "count": 3,
        "requests": ["r1", "r2"], "error": "connection reset", "suspect": {"request": "r2", "before": "md-1-r1-0"},
    })
}

#[tokio::test]
async fn requests_that_a_gateway_lost_become_one_event_however_often_it_says_so() {
    let plane = plane().await;
    let made = answer(plane.request(Method::POST, "/v1/modelDeployment").json(&sample())).await;
    let id = made.body["id"].as_i64().expect("a number");
    let mut drain = lost("other", id);
    drain["how"] = json!("replica_ended");
    for _ in 0..2 {
        assert_eq!(tell(&plane, json!([lost("one", id), drain, lost("gone", 4_711)])).await.status, 204);
    }
    let path = format!("/v1/modelDeployment/{id}/events");
    let events = answer(plane.request(Method::GET, &path)).await;
    let events: Vec<_> =
        events.body["items"].as_array().expect("a list").iter().filter(|it| it["actor"] == "gateway").collect();
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().expect("a word")).collect();
    assert_eq!(kinds, ["requests_lost", "drain_cut"]);
    assert_eq!((&events[0]["revision"], &events[0]["evidence"]["requests"]), (&json!(1), &json!(3)));
    let message = events[0]["message"].as_str().expect("words");
    assert_eq!(
        message,
        "the connection to md-1-r1-1 broke before it answered 3 requests (r1, r2, \u{2026}): connection reset; the \
         connection to md-1-r1-0 had broken with r2 too, so that request may have crashed both, and is not sent again"
    );
}

#[tokio::test]
async fn a_word_of_lost_requests_that_cannot_be_read_is_refused() {
    let plane = plane().await;
    let mut unknown = lost("one", 1);
    unknown["hwo"] = json!(1);
    tell(&plane, json!([unknown])).await.refused(422, "invalid_payload").saying("hwo");
    tell(&plane, json!(vec![lost("one", 1); 257])).await.refused(422, "invalid_payload").saying("at most 256");
}
