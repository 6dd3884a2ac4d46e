//! The decision log: ids, order, and readers who go on after the last id that they saw.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use api::{DeploymentId, DeploymentStatus, Timestamp, event::NewEvent};
use serde_json::{Value, json};
use store::{Order, Store};

use crate::support::{Database, NOW, SECOND, create, execute, hold, on_both, postgres, spec, text_of};

on_both! {
    a_reader_misses_nothing_while_many_write
    ids_grow_with_time_and_stay_exact_in_json
    ids_grow_although_the_clock_goes_back
    a_process_of_an_earlier_version_writes_beside_this_one
    many_events_are_written_in_their_order
}

fn event(message: String) -> NewEvent {
    NewEvent { revision: None, actor: "worker", kind: "test", message, evidence: Value::Null }
}

async fn append(store: &Store, id: DeploymentId, message: &str, now: Timestamp) {
    store.event_once(id, message, event(message.to_owned()), now).await.unwrap();
}

/// Everything after `after`, in pages of 7.
async fn read_after(store: &Store, after: &mut i64) -> Vec<(i64, String)> {
    let mut read = Vec::new();
    loop {
        let page = store.event_list(None, Order::OldestFirst, Some(*after), 7).await.unwrap();
        read.extend(page.items.into_iter().map(|event| (event.id, event.message)));
        if let Some((last, _)) = read.last() {
            *after = *last;
        }
        if page.next.is_none() {
            return read;
        }
    }
}

async fn a_reader_misses_nothing_while_many_write(database: Database) {
    const WRITERS: u32 = 6;
    const EACH: u32 = 40;
    let store = database.open().await;
    let mut ids = Vec::new();
    for _ in 0..WRITERS {
        ids.push(create(&store, &spec(json!({}))).await);
    }
    let mut after = 0;
    read_after(&store, &mut after).await;
    let done = Arc::<AtomicU32>::default();
    let mut writers = tokio::task::JoinSet::new();
    for (writer, id) in ids.into_iter().enumerate() {
        // Each with its own connections and its own clock, as another machine's process.
        let (store, done) = (database.open().await, done.clone());
        writers.spawn(async move {
            for n in 0..EACH {
                let skew = SECOND * u32::try_from(writer).unwrap() * (n % 3);
                append(&store, id, &format!("{writer}-{n}"), NOW.after(skew)).await;
            }
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    let mut seen = Vec::new();
    loop {
        let all_done = done.load(Ordering::SeqCst) == WRITERS;
        seen.extend(read_after(&store, &mut after).await);
        if all_done {
            break;
        }
    }
    writers.join_all().await;
    assert!(seen.is_sorted(), "ids grow");
    let messages: std::collections::BTreeSet<_> = seen.iter().map(|(_, message)| message.clone()).collect();
    assert_eq!((messages.len(), seen.len()), ((WRITERS * EACH) as usize, (WRITERS * EACH) as usize));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_late_is_seen_after_what_committed_early() {
    let database = postgres().await;
    let (store, other) = (database.open().await, database.open().await);
    let (slow, quick) = (create(&store, &spec(json!({}))).await, create(&store, &spec(json!({}))).await);
    let mut after = 0;
    read_after(&store, &mut after).await;
    // This event's transaction takes its id and commits a second later.
    execute(
        &database.url,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
         WHEN (NEW.message = 'slow') EXECUTE FUNCTION slow()",
    )
    .await;
    let writing = append(&store, slow, "slow", NOW);
    let beside = async {
        let is_committing = "SELECT COUNT(*)::text AS text FROM pg_stat_activity \
                             WHERE datname = current_database() AND wait_event = 'PgSleep'";
        while text_of(&database.url, is_committing).await == "0" {
            tokio::task::yield_now().await;
        }
        append(&other, quick, "quick", NOW.after(SECOND)).await;
        read_after(&other, &mut after).await
    };
    let ((), before) = tokio::join!(writing, beside);
    let words = |events: Vec<(i64, String)>| events.into_iter().map(|(_, message)| message).collect::<Vec<_>>();
    assert_eq!(words(before), [] as [&str; 0], "what may still be overtaken is not shown");
    assert_eq!(words(read_after(&other, &mut after).await), ["slow", "quick"]);
}

async fn ids_grow_with_time_and_stay_exact_in_json(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({}))).await;
    for (n, now) in
        [NOW, NOW.after(Duration::from_millis(100)), NOW.after(SECOND), Timestamp(i64::MAX)].iter().enumerate()
    {
        append(&store, id, &n.to_string(), *now).await;
    }
    let events = read_after(&store, &mut 0).await;
    assert!(events.is_sorted_by(|a, b| a.0 < b.0), "{events:?}");
    assert_eq!(events[1].0 >> 18, NOW.0 / 100_000);
    assert_eq!(events[3].0 >> 18, NOW.0 / 100_000 + 10);
    assert!(events.iter().all(|(id, _)| *id < 1 << 53), "{events:?}");
}

async fn ids_grow_although_the_clock_goes_back(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({}))).await;
    let mut after = 0;
    for seconds in [60, 30, 0] {
        append(&store, id, &seconds.to_string(), NOW.after(SECOND * seconds)).await;
        assert_eq!(read_after(&store, &mut after).await.last().unwrap().1, seconds.to_string());
    }
}

async fn a_process_of_an_earlier_version_writes_beside_this_one(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({}))).await;
    let mut after = 0;
    read_after(&store, &mut after).await;
    for round in 0..20 {
        append(&store, id, &format!("new {round}"), Timestamp::from(base::Clock::system().now())).await;
        // As it did: numbers of the counter, in a transaction.
        execute(
            &database.url,
            &format!(
                "UPDATE counter SET value = value + 2 WHERE name = 'event'; \
                 INSERT INTO event (id, deployment, at, actor, kind, message, evidence) SELECT value - 1, {id}, 0, 'user', \
                 'k', 'old {round}a', 'null' FROM counter WHERE name = 'event'; \
                 INSERT INTO event (id, deployment, at, actor, kind, message, evidence) SELECT value, {id}, 0, 'user', \
                 'k', 'old {round}b', 'null' FROM counter WHERE name = 'event'",
                id = id.0
            ),
        )
        .await;
        let words: Vec<_> = read_after(&store, &mut after).await.into_iter().map(|(_, message)| message).collect();
        assert_eq!(words, [format!("new {round}"), format!("old {round}a"), format!("old {round}b")]);
    }
}

async fn many_events_are_written_in_their_order(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({}))).await;
    let lease = hold(&store, id).await;
    let events: Vec<_> = (0..333).map(|n| event(n.to_string())).collect();
    store.deployment_observed(&lease, &DeploymentStatus::pending(), None, &events, None, NOW).await.unwrap();
    let words: Vec<_> = read_after(&store, &mut 0).await.into_iter().skip(1).map(|(_, message)| message).collect();
    assert_eq!(words, (0..333).map(|n| n.to_string()).collect::<Vec<_>>());
}
