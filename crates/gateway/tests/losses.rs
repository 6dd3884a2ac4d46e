//! What the control plane is told of requests that were lost with a replica.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use api::lost::{Loss, LostRequests};
use harness::{Control, Gateway, Manner, Replica, config, eventually, route};
use modelway_gateway::Config;

async fn told(control: &Control, holds: impl Fn(&[LostRequests]) -> bool) -> Vec<LostRequests> {
    eventually("a word of lost requests", || async {
        let lost = control.told.lost.lock().unwrap().clone();
        if holds(&lost) { Ok(lost) } else { Err(lost) }
    })
    .await
}

#[tokio::test]
async fn a_request_that_ends_replicas_is_told_with_its_id_and_theirs() {
    let replicas = [Replica::start("a", Manner::Fatal).await, Replica::start("b", Manner::Fatal).await];
    let control = Control::start().await;
    control.set(1, Some(route("iris", &replicas.each_ref())));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    let (status, headers, words) = gateway.post("/v2/models/iris/infer", "poison").await;
    assert_eq!(status, 502, "{words}");
    let id = headers["x-request-id"].to_str().unwrap();
    let lost = told(&control, |lost| lost.len() == 2).await;
    for lost in &lost {
        assert_eq!((lost.deployment.0, lost.revision.0, lost.how, lost.count), (1, 1, Loss::BrokeOff, 1), "{lost:?}");
        assert_eq!(lost.requests, [id]);
        assert!(!lost.error.is_empty());
    }
    let suspect = lost.iter().find_map(|lost| Some((lost.suspect.as_ref()?, &lost.replica))).unwrap();
    let other = lost.iter().find(|lost| lost.replica != *suspect.1).unwrap();
    assert_eq!((suspect.0.request.as_str(), &suspect.0.before), (id, &other.replica), "the second names the first");
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_replica_drops_when_it_is_told_to_end_is_told_as_that() {
    let (replica, control, gateway) = Gateway::simple(Manner::Never).await;
    let waiting = gateway.infer("iris");
    let ending = async {
        eventually("the request to be there", || async { (replica.requests() == 1).then_some(()).ok_or(()) }).await;
        let other = Replica::start("b", Manner::Well).await;
        control.set(1, Some(route("iris", &[&other])));
        eventually("the new route", || async {
            (gateway.infer("iris").await.2.starts_with("b ")).then_some(()).ok_or(())
        })
        .await;
        replica.kill().await;
        other
    };
    let ((status, _, words), _other) = tokio::join!(waiting, ending);
    assert_eq!((status, words.starts_with("b ")), (200, true), "it is tried once more: {words}");
    let lost = told(&control, |lost| !lost.is_empty()).await;
    assert_eq!((lost[0].replica.0.as_str(), lost[0].how, lost[0].count), ("a", Loss::ReplicaEnded, 1));
    gateway.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told() {
    static BREAK_OFF: tokio::sync::Notify = tokio::sync::Notify::const_new();
    let (_replica, control, gateway) = Gateway::simple(Manner::HalfAnswer(&BREAK_OFF)).await;
    let response = gateway.client.post(gateway.url("/v2/models/iris/infer")).body("{}").send().await.unwrap();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    BREAK_OFF.notify_one();
    assert!(response.bytes().await.is_err());
    let lost = told(&control, |lost| !lost.is_empty()).await;
    assert_eq!((lost[0].requests.as_slice(), lost[0].how), ([id].as_slice(), Loss::BrokeOff));
    gateway.stop().await;
}

#[tokio::test]
async fn losses_wait_for_the_control_plane_and_those_of_one_replica_are_told_together() {
    let replica = Replica::start("a", Manner::HangUp).await;
    let control = Control::start().await;
    let mut fragile = route("iris", &[&replica]);
    fragile.idempotent = false;
    control.set(1, Some(fragile));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    let addr = control.addr.to_string();
    control.stop().await;
    for _ in 0..30 {
        assert_eq!(gateway.infer("iris").await.0, 502);
    }
    let control = Control::start_at(&addr, "one").await;
    told(&control, |lost| !lost.is_empty()).await;
    for _ in 0..10 {
        assert_eq!(gateway.infer("iris").await.0, 502);
    }
    gateway.stop().await;
    let lost = told(&control, |lost| lost.iter().map(|lost| lost.count).sum::<u64>() == 40).await;
    assert!(lost.len() <= 3, "{lost:?}");
    assert!(lost.iter().all(|lost| lost.requests.len() <= 10));
}

#[tokio::test]
async fn the_loss_of_one_replica_does_not_wait_for_the_pause_of_another() {
    let (one, two) = (Replica::start("a", Manner::HangUp).await, Replica::start("b", Manner::HangUp).await);
    let control = Control::start().await;
    for (id, name, replica) in [(1, "iris", &one), (2, "digits", &two)] {
        let mut fragile = route(name, &[replica]);
        fragile.idempotent = false;
        control.set(id, Some(fragile));
    }
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-2").await;
    for (name, lost) in [("iris", 1), ("digits", 2)] {
        assert_eq!(gateway.infer(name).await.0, 502);
        told(&control, |told| told.len() == lost).await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_the_end_of_a_gateway_cuts_off_is_told() {
    let replica = Replica::start("a", Manner::Never).await;
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&replica])));
    let gateway = Gateway::with(Config { control_url: control.url(), drain_ms: 250, ..config() }).await;
    gateway.until_known("md-1").await;
    let waiting = gateway.client.post(gateway.url("/v2/models/iris/infer")).body("{}").send();
    let waiting = base::Tasks::new().spawn(waiting);
    eventually("the request to be there", || async { (replica.requests() == 1).then_some(()).ok_or(()) }).await;
    gateway.stop().await;
    assert!(waiting.await.unwrap().is_err(), "it is cut off");
    let lost = told(&control, |lost| !lost.is_empty()).await;
    assert_eq!((lost[0].replica.0.as_str(), lost[0].how, lost[0].count), ("a", Loss::GatewayEnded, 1));
    assert_eq!(lost[0].requests.len(), 1, "by its id");
}

#[tokio::test]
async fn what_the_end_cuts_off_at_a_replica_that_has_left_the_route_is_told() {
    static NEVER: tokio::sync::Notify = tokio::sync::Notify::const_new();
    let replica = Replica::start("a", Manner::Never).await;
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&replica])));
    let gateway = Gateway::with(Config { control_url: control.url(), drain_ms: 250, ..config() }).await;
    gateway.until_known("md-1").await;
    let (tasks, url) = (base::Tasks::new(), gateway.url("/v2/models/iris/infer"));
    let waiting = tasks.spawn(gateway.client.post(&url).body("{}").send());
    eventually("the request to be there", || async { (replica.requests() == 1).then_some(()).ok_or(()) }).await;
    // One waits for its answer, and of one a half has come.
    replica.behave(Manner::HalfAnswer(&NEVER));
    let half = gateway.client.post(&url).body("{}").send().await.unwrap();
    let other = Replica::start("b", Manner::Well).await;
    control.set(1, Some(route("iris", &[&other])));
    eventually("the new route", || async { (gateway.infer("iris").await.2.starts_with("b ")).then_some(()).ok_or(()) })
        .await;
    gateway.stop().await;
    assert!(waiting.await.unwrap().is_err() && half.bytes().await.is_err(), "both are cut off");
    let lost = told(&control, |lost| !lost.is_empty()).await;
    assert_eq!((lost.len(), lost[0].replica.0.as_str(), lost[0].how), (1, "a", Loss::GatewayEnded));
    assert_eq!((lost[0].count, lost[0].requests.len()), (2, 2));
}
