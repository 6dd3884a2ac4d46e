//! Workers: their leases, what these keep others from, and the list of who lives.

use api::{
    DeploymentId, DeploymentStatus, RevisionNumber, State,
    revision::{FoundFiles, Pin},
};
use serde_json::json;
use store::{StoreError, WorkerRecord};

use crate::support::{
    Database, NOW, SECOND, content, create, event_kinds, hold, named, on_both, spec, status, targets,
};

on_both! {
    a_lease_is_one_workers_until_it_runs_out
    of_many_takers_one_gets_the_lease
    a_worker_that_was_too_slow_writes_nothing
    a_released_lease_is_free_at_once
    only_a_deployment_that_is_being_deleted_can_be_purged
    what_a_worker_says_cannot_undo_what_a_person_asked_for
    workers_of_two_machines_are_kept_apart
    two_workers_of_two_scopes_that_start_at_once_are_not_both_let_in
    workers_that_are_gone_are_forgotten
    the_files_that_a_revision_began_with_are_written_down_once_and_by_the_holder_of_the_lease
}

async fn the_files_that_a_revision_began_with_are_written_down_once_and_by_the_holder_of_the_lease(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    let found =
        |digest: &str| FoundFiles { uri: "/models".into(), digest: digest.into(), fingerprint: Some("f".into()) };
    let slow = hold(&store, id).await;
    let quick = store.lease_acquire(id, "worker-2", SECOND, NOW.after(SECOND * 30)).await.unwrap().unwrap();
    let refused = store.revision_pin(&slow, RevisionNumber(1), &found("one"), NOW).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    assert_eq!(store.revision_list(id).await.unwrap()[0].pin, None);
    for (digest, at) in [("one", NOW), ("two", NOW.after(SECOND))] {
        store.revision_pin(&quick, RevisionNumber(1), &found(digest), at).await.unwrap();
        let pin = store.revision_list(id).await.unwrap().remove(0).pin;
        assert_eq!(pin, Some(Pin { files: found("one"), at: NOW }), "the first one holds");
    }
    let again = store.deployment_redeploy(id, None, NOW).await.unwrap();
    let pins: Vec<_> =
        store.revision_list(id).await.unwrap().into_iter().map(|it| (it.number.0, it.pin.is_some())).collect();
    assert_eq!((again.revision.0, pins), (2, vec![(2, false), (1, true)]), "a new one begins with what is there");
    let back = store.deployment_restore(id, RevisionNumber(1), None, NOW).await.unwrap();
    assert_eq!(back.revision.0, 1);
}

async fn a_lease_is_one_workers_until_it_runs_out(database: Database) {
    let (store, other) = (database.open().await, database.open().await);
    let id = create(&store, &content(1)).await;
    let first = hold(&store, id).await;
    assert_eq!(first.until, NOW.after(SECOND * 30));
    assert_eq!(other.lease_acquire(id, "worker-2", SECOND, NOW.after(SECOND * 29)).await.unwrap(), None);
    assert_eq!(store.lease_acquire(id, "worker-1", SECOND, NOW).await.unwrap(), None, "not even its own again");
    let renewed = store.lease_renew(&first, SECOND * 30, NOW.after(SECOND * 20)).await.unwrap();
    assert_eq!((renewed.fence, renewed.until), (first.fence, NOW.after(SECOND * 50)));
    assert_eq!(other.lease_acquire(id, "worker-2", SECOND, NOW.after(SECOND * 49)).await.unwrap(), None);
    let taken = other.lease_acquire(id, "worker-2", SECOND, NOW.after(SECOND * 50)).await.unwrap().unwrap();
    assert!(taken.fence > first.fence);
    assert!(matches!(store.lease_renew(&first, SECOND, NOW).await, Err(StoreError::Fenced)));
    assert_eq!(
        store.lease_acquire(DeploymentId(9), "worker-1", SECOND, NOW).await.unwrap(),
        None,
        "no such deployment"
    );
}

async fn of_many_takers_one_gets_the_lease(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    let mut takers = tokio::task::JoinSet::new();
    for n in 0..6 {
        let store = if n % 2 == 0 { store.clone() } else { database.open().await };
        takers.spawn(async move { store.lease_acquire(id, &format!("worker-{n}"), SECOND, NOW).await.unwrap() });
    }
    assert_eq!(takers.join_all().await.into_iter().flatten().count(), 1);
}

async fn a_worker_that_was_too_slow_writes_nothing(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    let slow = hold(&store, id).await;
    let quick = store.lease_acquire(id, "worker-2", SECOND, NOW.after(SECOND * 30)).await.unwrap().unwrap();
    let before = (store.deployment_get(id).await.unwrap(), store.route_changes(0, 9).await.unwrap().version);
    let event = api::event::NewEvent {
        revision: None,
        actor: "worker",
        kind: "failed",
        message: "x".into(),
        evidence: json!(1),
    };
    let active = status(State::Active, Some(1));
    let outcome = store.deployment_observed(&slow, &active, Some(&targets(1, "h:1")), &[event], Some(1), NOW).await;
    assert!(matches!(outcome, Err(StoreError::Fenced)));
    assert_eq!((store.deployment_get(id).await.unwrap(), store.route_changes(0, 9).await.unwrap().version), before);
    assert_eq!(event_kinds(&store, id).await, ["created"]);
    store.lease_release(&slow).await.unwrap();
    assert_eq!(
        store.lease_acquire(id, "worker-3", SECOND, NOW.after(SECOND * 30)).await.unwrap(),
        None,
        "releasing a lease that was taken over frees nothing"
    );
    store.deployment_observed(&quick, &active, None, &[], None, NOW).await.unwrap();
}

async fn a_released_lease_is_free_at_once(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    let first = hold(&store, id).await;
    store.lease_release(&first).await.unwrap();
    let second = hold(&store, id).await;
    assert!(second.fence > first.fence);
    let outcome = store.deployment_observed(&first, &DeploymentStatus::pending(), None, &[], None, NOW).await;
    assert!(matches!(outcome, Err(StoreError::Fenced)), "the same worker's older holding is fenced too");
}

async fn only_a_deployment_that_is_being_deleted_can_be_purged(database: Database) {
    let store = database.open().await;
    let id = create(&store, &named("iris")).await;
    let lease = hold(&store, id).await;
    assert!(matches!(store.deployment_purge(&lease, NOW).await, Err(StoreError::Fenced)));
    store.deployment_delete(id, None, NOW).await.unwrap();
    store.deployment_purge(&lease, NOW).await.unwrap();
    assert!(matches!(store.deployment_get(id).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.deployment_wanted(id, &[]).await.unwrap(), None);
    assert!(matches!(store.deployment_purge(&lease, NOW).await, Err(StoreError::Fenced)));
}

async fn what_a_worker_says_cannot_undo_what_a_person_asked_for(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({"name": "iris", "request_timeout_ms": 70}))).await;
    let lease = hold(&store, id).await;
    let active = status(State::Active, Some(1));
    let observe = async |address: &str| {
        store.deployment_observed(&lease, &active, Some(&targets(1, address)), &[], None, NOW).await.unwrap();
        store.route_changes(0, 9).await.unwrap().whole_routes().remove(0).route.unwrap()
    };
    let seen = observe("h:1").await;
    assert_eq!((seen.name.as_deref(), seen.request_timeout_ms, seen.state), (Some("iris"), 70, State::Active));

    // A rename between the worker's reading and its writing stands.
    store.deployment_replace(id, &named("rose"), None, NOW).await.unwrap();
    let renamed = store.route_changes(0, 9).await.unwrap().whole_routes().remove(0).route.unwrap();
    assert_eq!((renamed.name.as_deref(), renamed.revisions.len()), (Some("rose"), 1), "its replicas stay");
    assert_eq!(observe("h:2").await.name.as_deref(), Some("rose"));

    store.deployment_delete(id, None, NOW).await.unwrap();
    let seen = observe("h:3").await;
    assert_eq!((seen.name, seen.state, seen.revisions.len()), (None, State::Deleting, 1), "it serves until drained");
    assert_eq!(store.deployment_get(id).await.unwrap().status.state, State::Deleting);
}

fn worker(id: &str, scope: &str, seen: u32) -> WorkerRecord {
    let address = format!("127.0.0.1:{seen}");
    let seen_at = NOW.after(SECOND * seen);
    WorkerRecord { id: id.into(), placement: "local".into(), scope: scope.into(), address, seen_at }
}

async fn workers_of_two_machines_are_kept_apart(database: Database) {
    let store = database.open().await;
    store.worker_seen(&worker("a", "node-1", 0), SECOND * 10).await.unwrap();
    store.worker_seen(&worker("b", "node-1", 1), SECOND * 10).await.unwrap();
    let refused = store.worker_seen(&worker("c", "node-2", 2), SECOND * 10).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Conflict { code: "other_scope", reason } if reason.contains("node-1")));
    let live = store.worker_list(NOW).await.unwrap();
    assert_eq!(live.iter().map(|worker| worker.id.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(store.worker_list(NOW.after(SECOND)).await.unwrap(), [worker("b", "node-1", 1)]);
    store.worker_gone("a").await.unwrap();
    store.worker_gone("b").await.unwrap();
    store.worker_seen(&worker("c", "node-2", 3), SECOND * 10).await.unwrap();
}

async fn two_workers_of_two_scopes_that_start_at_once_are_not_both_let_in(database: Database) {
    let (one, other) = (database.open().await, database.open().await);
    for round in 0..5 {
        let (a, b) = (worker(&format!("a{round}"), "node-1", round), worker(&format!("b{round}"), "node-2", round));
        let (first, second) = tokio::join!(one.worker_seen(&a, SECOND * 10), other.worker_seen(&b, SECOND * 10));
        assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "{first:?} {second:?}");
        one.worker_gone(&a.id).await.unwrap();
        one.worker_gone(&b.id).await.unwrap();
    }
}

async fn workers_that_are_gone_are_forgotten(database: Database) {
    let store = database.open().await;
    store.worker_seen(&worker("a", "node-1", 0), SECOND * 10).await.unwrap();
    store.worker_seen(&worker("b", "node-2", 10), SECOND * 10).await.unwrap();
    assert_eq!(store.worker_list(NOW).await.unwrap(), [worker("b", "node-2", 10)]);
}
