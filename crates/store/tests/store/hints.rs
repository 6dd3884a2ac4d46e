//! Hints by way of PostgreSQL.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use store::WorkerRecord;
use wake::conformance::{Subject, suite};

use crate::support::{NOW, create, execute, postgres, spec};

async fn subject() -> Subject {
    let database = postgres().await;
    let (one, other) = (database.open().await, database.open().await);
    let workers = ["worker-00000000000000a1", "worker-00000000000000b2"].map(str::to_owned);
    for id in &workers {
        let record = WorkerRecord {
            id: id.clone(),
            placement: "local".into(),
            scope: "here".into(),
            address: "h:1".into(),
            seen_at: NOW,
        };
        one.worker_seen(&record, Duration::from_mins(1)).await.unwrap();
    }
    Subject { handles: [one.wake_ups(), other.wake_ups()], workers, keeps: Some(Box::new(database)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_by_postgres_conform() {
    suite(subject).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_hears_again_after_its_connection_was_lost() {
    use futures::StreamExt as _;
    let database = postgres().await;
    let store = database.open().await;
    let record = WorkerRecord {
        id: "w".into(),
        placement: "local".into(),
        scope: "here".into(),
        address: "h:1".into(),
        seen_at: NOW,
    };
    store.worker_seen(&record, Duration::from_mins(1)).await.unwrap();
    let way = store.wake_ups();
    let mut hints = way.listen("w");
    for round in 0..3 {
        let hear = async {
            loop {
                // The connections of the pool were lost too; the next attempt has others.
                let _ = way.publish(&[api::DeploymentId(round)]).await;
                let hint = tokio::time::timeout(Duration::from_millis(100), hints.next()).await;
                if hint == Ok(Some(api::DeploymentId(round))) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), hear).await.expect("a hint comes");
        execute(
            &database.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hint_goes_to_a_worker_of_the_deployments_placement() {
    use futures::StreamExt as _;
    let database = postgres().await;
    let store = database.open().await;
    let mut heard = Vec::new();
    for placement in ["local", "east"] {
        let record = WorkerRecord {
            id: placement.into(),
            placement: placement.into(),
            scope: placement.into(),
            address: "h:1".into(),
            seen_at: NOW,
        };
        store.worker_seen(&record, Duration::from_mins(1)).await.unwrap();
        heard.push(store.wake_ups().listen(placement));
    }
    let mut ids = Vec::new();
    for n in 0..20 {
        let placement = ["local", "east"][n % 2];
        ids.push(create(&store, &spec(json!({"placement": placement}))).await);
    }
    let way = store.wake_ups();
    for (place, hints) in heard.iter_mut().enumerate() {
        let own: BTreeSet<_> = ids.iter().copied().skip(place).step_by(2).collect();
        let all = async {
            let mut got = BTreeSet::new();
            while got != own {
                way.publish(&ids).await.unwrap();
                while let Ok(Some(id)) = tokio::time::timeout(Duration::from_millis(100), hints.next()).await {
                    assert!(own.contains(&id), "{id} is of another placement");
                    got.insert(id);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("all hints come");
    }
}
