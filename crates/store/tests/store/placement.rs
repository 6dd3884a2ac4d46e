//! Placements: what workers of each have in sight, and that workers of a version without placements touch no other's.

use std::time::Duration;

use api::DeploymentId;
use base::Clock;
use serde_json::json;
use store::{Store, StoreError, TaskQueue, WorkerRecord};

use crate::support::{Database, NOW, SECOND, create, event_kinds, execute, on_both, spec, text_of};

on_both! {
    a_deployment_keeps_its_placement
    leases_tasks_and_scans_are_those_of_a_placement
    a_worker_without_placements_takes_no_lease_of_another_placement
    workers_of_two_placements_need_two_scopes_and_a_version_that_knows_placements
}

async fn placed(store: &Store, placement: &str) -> DeploymentId {
    create(store, &spec(json!({"placement": placement}))).await
}

fn worker(id: &str, placement: &str, scope: &str) -> WorkerRecord {
    let (placement, scope) = (placement.to_owned(), scope.to_owned());
    WorkerRecord { id: id.to_owned(), placement, scope, address: "127.0.0.1:1".to_owned(), seen_at: NOW }
}

async fn a_deployment_keeps_its_placement(database: Database) {
    let store = database.open().await;
    let (here, there) = (create(&store, &spec(json!({}))).await, placed(&store, "east").await);
    let of = async |id| store.deployment_get(id).await.unwrap().spec.placement;
    assert_eq!((of(here).await.as_deref(), of(there).await.as_deref()), (Some("local"), Some("east")));

    let changed = store.deployment_replace(there, &spec(json!({"replicas": 2})), None, NOW).await.unwrap();
    assert_eq!((changed.spec.placement(), changed.spec.replicas, changed.revision.0), ("east", 2, 1));
    let moved = store.deployment_replace(there, &spec(json!({"placement": "west"})), None, NOW).await;
    assert!(matches!(moved, Err(StoreError::Conflict { code: "immutable", .. })), "{moved:?}");
    assert_eq!(of(there).await.as_deref(), Some("east"));
    let count = |placement: &str, n| (placement.to_owned(), n);
    assert_eq!(store.placement_count().await.unwrap(), [count("east", 1), count("local", 1)]);

    // An older control plane writes a specification back without what it does not know.
    execute(&database.url, "UPDATE deployment SET spec = REPLACE(spec, '\"placement\":\"east\",', '')").await;
    assert_eq!(of(there).await.as_deref(), Some("east"));
}

async fn leases_tasks_and_scans_are_those_of_a_placement(database: Database) {
    let store = database.open().await;
    let (here, there) = (create(&store, &spec(json!({}))).await, placed(&store, "east").await);
    let views = [(store.clone(), here, there), (store.placed("east"), there, here)];
    for (view, own, other) in &views {
        let scanned: Vec<_> = view.deployment_scan(None, 10).await.unwrap().items.iter().map(|row| row.id).collect();
        assert_eq!(scanned, [*own]);
        assert_eq!(view.lease_acquire(*other, "worker", SECOND, NOW).await.unwrap(), None);
        let lease = view.lease_acquire(*own, "worker", SECOND * 30, NOW).await.unwrap().expect("nobody holds it");
        let later = NOW.after(SECOND * 20);
        let lease = view.lease_renew(&lease, SECOND * 30, later).await.unwrap();
        assert_eq!(lease.until, later.after(SECOND * 30));
        assert_eq!(view.lease_acquire(*own, "other", SECOND, later.after(SECOND * 29)).await.unwrap(), None);
        let taken = view.lease_acquire(*own, "other", SECOND, later.after(SECOND * 30)).await.unwrap().unwrap();
        assert!(matches!(view.lease_renew(&lease, SECOND, later).await, Err(StoreError::Fenced)));
        view.lease_release(&taken).await.unwrap();
        assert!(view.lease_acquire(*own, "third", SECOND, later).await.unwrap().is_some(), "it is free at once");

        let queue = TaskQueue::new(view.clone(), Clock::system());
        let task = queue.next(Duration::from_secs(60)).await.unwrap().expect("its creation woke it");
        assert_eq!(task.deployment, *own);
        queue.ack(&task.receipt).await.unwrap();
        assert!(queue.next(Duration::from_secs(60)).await.unwrap().is_none(), "the other's is not for it");
        queue.wake(*other, Duration::ZERO).await.unwrap();
    }
    // Both were woken by the other's worker. A new epoch ends all leases.
    let epoch = store.lineage().await.unwrap().current;
    store.epoch_renew(&epoch).await.unwrap();
    for (view, own, _) in &views {
        assert!(view.lease_acquire(*own, "worker", SECOND, NOW).await.unwrap().is_some());
    }
    // Whose a task of a deployment that is gone was is not known any more, so anybody ends it.
    let gone = DeploymentId(77);
    let queue = TaskQueue::new(store.placed("west"), Clock::system());
    queue.wake(gone, Duration::ZERO).await.unwrap();
    assert_eq!(queue.next(Duration::from_secs(60)).await.unwrap().expect("it is due").deployment, gone);
}

/// How a version without placements takes a lease.
const TAKE: &str = "UPDATE deployment SET fence = fence + 1, lease_owner = 'old', lease_until = 9000000000000000 \
    WHERE lease_owner IS NULL OR lease_until <= 8000000000000000";

async fn a_worker_without_placements_takes_no_lease_of_another_placement(database: Database) {
    let store = database.open().await;
    let (here, there) = (create(&store, &spec(json!({}))).await, placed(&store, "east").await);
    let east = store.placed("east");
    let owner = async || {
        let of =
            |id: DeploymentId| format!("SELECT COALESCE(lease_owner, '-') AS text FROM deployment WHERE id = {}", id.0);
        (text_of(&database.url, &of(here)).await, text_of(&database.url, &of(there)).await)
    };
    assert_eq!(owner().await, ("-".to_owned(), String::new()));
    execute(&database.url, TAKE).await;
    assert_eq!(owner().await, ("old".to_owned(), String::new()), "never held");

    let lease = east.lease_acquire(there, "worker", SECOND, NOW).await.unwrap().expect("nobody holds it");
    execute(&database.url, TAKE).await;
    assert_eq!(owner().await.1, "worker", "the lease has run out long before");
    east.lease_release(&lease).await.unwrap();
    execute(&database.url, TAKE).await;
    assert_eq!(owner().await.1, "", "released");

    let epoch = store.lineage().await.unwrap().current;
    store.epoch_renew(&epoch).await.unwrap();
    execute(&database.url, TAKE).await;
    assert_eq!(owner().await, ("old".to_owned(), String::new()), "all leases ended");
    assert_eq!(event_kinds(&store, there).await, ["created"]);
}

async fn workers_of_two_placements_need_two_scopes_and_a_version_that_knows_placements(database: Database) {
    let store = database.open().await;
    let sees = async |worker: &WorkerRecord| match store.worker_seen(worker, SECOND * 20).await {
        Ok(()) => String::new(),
        Err(StoreError::Conflict { code: "other_scope", reason }) => reason,
        Err(error) => panic!("{error:?}"),
    };
    for fine in [worker("a", "local", "here"), worker("b", "local", "here"), worker("c", "east", "there")] {
        assert_eq!(sees(&fine).await, "", "{fine:?}");
    }
    let refusals = [
        (worker("d", "east", "here"), "worker a at 127.0.0.1:1"),
        (worker("d", "local", "elsewhere"), "worker.placement"),
        (worker("d", "east", "elsewhere"), "worker.placement"),
        (worker("d", "west", "there"), "`west`"),
    ];
    for (refused, word) in refusals {
        let reason = sees(&refused).await;
        assert!(reason.contains(word), "{reason}");
    }
    let listed = store.worker_list(NOW).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|worker| (worker.id.as_str(), worker.placement.as_str())).collect();
    assert_eq!(listed, [("a", "local"), ("b", "local"), ("c", "east")]);

    // A worker of an older version writes no placement.
    execute(&database.url, "UPDATE worker SET placement = NULL WHERE id = 'a'").await;
    assert_eq!(sees(&worker("b", "local", "here")).await, "");
    let reason = sees(&worker("c", "east", "there")).await;
    assert!(reason.contains("worker a") && reason.contains("older version"), "{reason}");
    assert!(sees(&worker("d", "local", "elsewhere")).await.contains("in `here`"));
    assert_eq!(store.worker_list(NOW).await.unwrap()[0].placement, "local");
}
