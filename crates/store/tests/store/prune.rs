//! What is forgotten, and what is not.

use std::time::Duration;

use api::{DeploymentId, DeploymentStatus, Timestamp, event::NewEvent};
use serde_json::{Value, json};
use store::{Idempotent, Order, Pruned, Store};

use crate::support::{Database, NOW, create, event_kinds, execute, hold, on_both, spec};

const DAY: Duration = Duration::from_secs(24 * 3600);

on_both! {
    only_the_newest_events_of_a_deployment_stay
    the_events_of_one_that_is_gone_end_a_month_later
    a_tombstone_ends_a_day_later_and_who_needed_it_can_tell
    an_idempotency_key_ends_a_day_later
    many_that_prune_at_once_do_it_once
    what_was_gone_before_anything_was_forgotten_is_forgotten_too
}

async fn end(store: &Store, id: DeploymentId, at: Timestamp) {
    store.deployment_delete(id, None, at).await.unwrap();
    let lease = hold(store, id).await;
    store.deployment_purge(&lease, at).await.unwrap();
}

async fn only_the_newest_events_of_a_deployment_stay(database: Database) {
    let store = database.open().await;
    let (busy, quiet) = (create(&store, &spec(json!({}))).await, create(&store, &spec(json!({}))).await);
    let lease = hold(&store, busy).await;
    let event = |n: usize| NewEvent {
        revision: None,
        actor: "worker",
        kind: "restarted",
        message: n.to_string(),
        evidence: Value::Null,
    };
    let events: Vec<_> = (1..=1_300).map(event).collect();
    store.deployment_observed(&lease, &DeploymentStatus::pending(), None, &events, None, NOW).await.unwrap();
    assert_eq!(store.prune(NOW).await.unwrap(), Pruned { events: 301, ..Pruned::default() });
    let first = store.event_list(Some(busy), Order::OldestFirst, None, 1).await.unwrap().items.remove(0);
    let last = store.event_list(Some(busy), Order::NewestFirst, None, 1).await.unwrap().items.remove(0);
    assert_eq!((first.message.as_str(), last.message.as_str()), ("301", "1300"));
    assert_eq!(event_kinds(&store, quiet).await, ["created"]);
    assert_eq!(
        store.prune(NOW.after(DAY * 365)).await.unwrap(),
        Pruned::default(),
        "a living one keeps its old events"
    );
}

async fn the_events_of_one_that_is_gone_end_a_month_later(database: Database) {
    let store = database.open().await;
    let (gone, lives) = (create(&store, &spec(json!({}))).await, create(&store, &spec(json!({}))).await);
    end(&store, gone, NOW).await;
    store.prune(NOW.after(DAY * 29)).await.unwrap();
    assert_eq!(event_kinds(&store, gone).await, ["created", "deletion_requested", "deleted"]);
    assert_eq!(store.prune(NOW.after(DAY * 31)).await.unwrap().events, 3);
    assert!(event_kinds(&store, gone).await.is_empty());
    assert_eq!(event_kinds(&store, lives).await, ["created"]);
}

async fn a_tombstone_ends_a_day_later_and_who_needed_it_can_tell(database: Database) {
    let store = database.open().await;
    let (first, second) = (create(&store, &spec(json!({}))).await, create(&store, &spec(json!({}))).await);
    let known = store.route_changes(0, 9).await.unwrap().version;
    end(&store, first, NOW).await;
    let told = store.route_changes(known, 9).await.unwrap();
    let version = told.version;
    assert_eq!((told.pruned, told.whole_routes().len()), (0, 1));
    end(&store, second, NOW.after(DAY)).await;

    assert_eq!(store.prune(NOW.after(DAY * 3 / 2)).await.unwrap().tombstones, 1);
    let late = store.route_changes(known, 9).await.unwrap();
    assert!(known < late.pruned, "it is no longer told of {first}");
    let in_time = store.route_changes(version, 9).await.unwrap();
    assert!(version >= in_time.pruned, "it was told of {first}");
    assert_eq!(in_time.whole_routes().iter().map(|change| change.deployment).collect::<Vec<_>>(), [second]);
    let newcomer = store.route_changes(0, 9).await.unwrap();
    assert!(newcomer.version >= newcomer.pruned);
    assert_eq!(newcomer.changes(0), []);
}

async fn an_idempotency_key_ends_a_day_later(database: Database) {
    let store = database.open().await;
    let key = Idempotent { key: "k".into(), payload: "p".into() };
    store.deployment_create(&spec(json!({})), Some(&key), NOW).await.unwrap();
    assert_eq!(store.prune(NOW.after(DAY / 2)).await.unwrap(), Pruned::default());
    assert_eq!(store.prune(NOW.after(DAY * 2)).await.unwrap(), Pruned { keys: 1, ..Pruned::default() });
}

async fn many_that_prune_at_once_do_it_once(database: Database) {
    let store = database.open().await;
    for _ in 0..60 {
        let id = create(&store, &spec(json!({}))).await;
        end(&store, id, NOW).await;
    }
    let mut pruners = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = database.open().await;
        pruners.spawn(async move { store.prune(NOW.after(DAY * 40)).await.unwrap() });
    }
    let pruned = pruners.join_all().await;
    assert_eq!(pruned.iter().map(|pruned| pruned.tombstones).sum::<u64>(), 60);
    assert_eq!(pruned.iter().map(|pruned| pruned.events).sum::<u64>(), 180);
}

async fn what_was_gone_before_anything_was_forgotten_is_forgotten_too(database: Database) {
    let store = database.open().await;
    let (gone, lives) = (create(&store, &spec(json!({}))).await, create(&store, &spec(json!({}))).await);
    end(&store, gone, NOW).await;
    drop(store);
    // The database as the first migration left it.
    execute(
        &database.url,
        "DROP TABLE gone; DROP INDEX route_tombstone; DELETE FROM counter WHERE name = 'route_pruned'; \
         ALTER TABLE route DROP COLUMN policy; ALTER TABLE route DROP COLUMN policy_version; \
         ALTER TABLE route DROP COLUMN targets; ALTER TABLE route DROP COLUMN targets_version; \
         DROP INDEX deployment_by_placement; ALTER TABLE deployment DROP COLUMN placement; \
         ALTER TABLE worker DROP COLUMN placement; ALTER TABLE deployment DROP COLUMN traffic; ALTER TABLE revision DROP COLUMN pin; \
         DROP TABLE stray; DROP INDEX task_by_placement; ALTER TABLE task DROP COLUMN placement; DELETE FROM modelway_schema WHERE version >= 2",
    )
    .await;
    let store = database.open().await;
    assert_eq!(store.prune(NOW).await.unwrap(), Pruned::default());
    assert_eq!(store.prune(NOW.after(DAY * 2)).await.unwrap().tombstones, 1);
    assert_eq!(store.prune(NOW.after(DAY * 31)).await.unwrap().events, 3);
    assert_eq!((event_kinds(&store, gone).await.len(), event_kinds(&store, lives).await.len()), (0, 1));
}
