//! Hints by way of PostgreSQL.

use std::time::Duration;

use store::WorkerRecord;
use wake::conformance::{Subject, suite};

use crate::support::{NOW, execute, postgres};

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
