//! What the control plane is told of ejected replicas.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use api::ejected::{Cause, Ejected};
use harness::{Control, Gateway, Manner, Replica, eventually, route};

async fn told(control: &Control, holds: impl Fn(&[Ejected]) -> bool) -> Vec<Ejected> {
    eventually("a report of an ejection", || async {
        let ejected = control.told.ejected.lock().unwrap().clone();
        if holds(&ejected) { Ok(ejected) } else { Err(ejected) }
    })
    .await
}

#[tokio::test]
async fn a_replica_that_cannot_be_reached_is_reported_once_with_all_its_ejections() {
    let (well, gone) = (Replica::start("a", Manner::Well).await, Replica::start("b", Manner::Well).await);
    let control = Control::start().await;
    control.set(1, Some(route("iris", &[&well, &gone])));
    let gateway = Gateway::start(&control).await;
    gateway.until_known("md-1").await;
    gone.kill().await;
    let ejected = eventually("a report of an ejection", || async {
        assert_eq!(gateway.infer("iris").await.0, 200);
        let ejected = control.told.ejected.lock().unwrap().clone();
        if ejected.is_empty() { Err(()) } else { Ok(ejected) }
    })
    .await;
    let [first] = &ejected[..] else { panic!("{ejected:?}") };
    assert_eq!((first.deployment.0, first.revision.0, first.replica.0.as_str()), (1, 1, "b"));
    assert!(matches!(first.cause, Cause::Unreachable | Cause::BrokeOff), "{first:?}");
    assert!(first.pause_ms.is_some_and(|pause| pause >= 500) && !first.error.is_empty(), "{first:?}");
    // Later ejections are combined, and told at the end at the latest.
    eventually("more ejections", || async {
        gateway.infer("iris").await;
        let metrics = gateway.get("/metrics").await.2;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("modelway_gateway_ejections_total{") && line.contains("replica=\"b\""));
        let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
        if count > first.count { Ok(()) } else { Err(metrics) }
    })
    .await;
    assert_eq!(control.told.ejected.lock().unwrap().len(), 1, "not again within a minute");
    gateway.stop().await;
    let ejected = told(&control, |ejected| ejected.len() == 2).await;
    assert!(ejected[1].count >= 1 && ejected[1].key != first.key, "{ejected:?}");
}

#[tokio::test]
async fn a_replica_that_fails_five_requests_in_a_row_is_reported() {
    let (_replica, control, gateway) = Gateway::simple(Manner::Status(500)).await;
    for _ in 0..5 {
        assert_eq!(gateway.infer("iris").await.0, 500);
    }
    let ejected = told(&control, |ejected| !ejected.is_empty()).await;
    assert_eq!((ejected[0].cause, ejected[0].error.as_str()), (Cause::Failing, "it answered 500"));
    assert_eq!((ejected[0].replica.0.as_str(), ejected[0].count), ("a", 1));
    gateway.stop().await;
}
