//! Reports of gateways about ejected replicas become events.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Plane, answer, plane, sample};

async fn tell(plane: &Plane, ejected: Value) -> Answer {
    answer(plane.request(Method::POST, "/v1/routes/ejected").json(&ejected)).await
}

fn ejected(key: &str, deployment: i64) -> Value {
    json!({
        "key": key, "deployment": deployment, "revision": 1, "replica": "md-1-r1-1", "cause": "unreachable",
        "error": "connection refused", "count": 3, "pause_ms": 2_150,
    })
}

#[tokio::test]
async fn an_ejected_replica_becomes_one_event_however_often_it_is_reported() {
    let plane = plane().await;
    let made = answer(plane.request(Method::POST, "/v1/modelDeployment").json(&sample())).await;
    let id = made.body["id"].as_i64().expect("a number");
    let mut hung = ejected("other", id);
    (hung["cause"], hung["count"]) = (json!("hung"), json!(1));
    hung.as_object_mut().expect("an object").remove("pause_ms");
    for _ in 0..2 {
        assert_eq!(tell(&plane, json!([ejected("one", id), hung, ejected("gone", 4_711)])).await.status, 204);
    }
    let path = format!("/v1/modelDeployment/{id}/events");
    let events = answer(plane.request(Method::GET, &path)).await;
    let events: Vec<_> =
        events.body["items"].as_array().expect("a list").iter().filter(|it| it["actor"] == "gateway").collect();
    let kinds: Vec<_> = events.iter().map(|event| event["kind"].as_str().expect("a word")).collect();
    assert_eq!(kinds, ["replica_ejected", "replica_ejected"]);
    assert_eq!(
        events[0]["evidence"],
        json!({
            "replica": "md-1-r1-1", "cause": "unreachable", "error": "connection refused", "ejections": 3,
            "pause_ms": 2_150,
        })
    );
    let messages: Vec<_> = events.iter().map(|event| event["message"].as_str().expect("words")).collect();
    assert_eq!(
        messages,
        [
            "md-1-r1-1 gets no requests for 2.1 s, while other replicas can serve, because a gateway cannot connect to it: \
             connection refused (ejection 3 since the last event)",
            "md-1-r1-1 gets no requests until it answers a probe, because it had unanswered requests and hangs: \
             connection refused",
        ]
    );
}

#[tokio::test]
async fn a_report_of_ejected_replicas_that_cannot_be_read_is_refused() {
    let plane = plane().await;
    let mut unknown = ejected("one", 1);
    unknown["cuase"] = json!(1);
    tell(&plane, json!([unknown])).await.refused(422, "invalid_payload").saying("cuase");
    tell(&plane, json!(vec![ejected("one", 1); 257])).await.refused(422, "invalid_payload").saying("at most 256");
}
