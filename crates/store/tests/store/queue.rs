//! The queue of tasks.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use base::{Clock, Tasks};
use futures::StreamExt as _;
use serde_json::json;
use store::TaskQueue;
use wake::{Announcer, Local, WakeUps as _};

use crate::{
    queue_life::{Subject, suite},
    support::{Database, NOW, create, execute, named, on_both, postgres, spec, sqlite, text_of},
};

fn still() -> Clock {
    Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_conforms_on_sqlite() {
    suite(async || Subject::new(sqlite(), still()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_conforms_on_postgres() {
    suite(async || Subject::new(postgres().await, still()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_conforms_by_the_machines_clock() {
    suite(async || Subject::new(sqlite(), Clock::system()).await).await;
}

on_both! {
    what_people_do_wakes_the_worker_in_the_same_transaction
    a_hint_in_the_same_process_is_not_waited_for
}

async fn what_people_do_wakes_the_worker_in_the_same_transaction(database: Database) {
    let store = database.open().await;
    let queue = TaskQueue::new(store.clone(), Clock::system());
    let next = async || {
        let task = queue.next(Duration::from_secs(60)).await.unwrap()?;
        queue.ack(&task.receipt).await.unwrap();
        Some(task.deployment)
    };
    let id = create(&store, &named("iris")).await;
    assert_eq!(next().await, Some(id));
    store.deployment_create(&named("iris"), None, NOW).await.expect_err("the name is taken");
    store.deployment_replace(id, &named("iris"), None, NOW).await.unwrap();
    assert_eq!(next().await, None, "what changed nothing wakes nobody");
    store.deployment_replace(id, &named("rose"), None, NOW).await.unwrap();
    assert_eq!(next().await, Some(id));
    store.deployment_delete(id, None, NOW).await.unwrap();
    assert_eq!(next().await, Some(id));
}

async fn a_hint_in_the_same_process_is_not_waited_for(database: Database) {
    let (tasks, way) = (Tasks::new(), Local::default());
    let store = database.open().await.announcing(Announcer::start(Arc::new(way.clone()), &tasks));
    let queue = TaskQueue::new(store.clone(), Clock::system());
    let (heard, mut hints) = (queue.clone(), way.listen("worker-1"));
    let hearing = tasks.child();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                Some(_) = hints.next() => heard.hint(),
                () = hearing.stopping() => return,
            }
        }
    });
    let mut quickest = Duration::MAX;
    // The median would be near half a look's interval if nobody told the waiting one.
    for _ in 0..10 {
        let waiting = queue.next(Duration::from_secs(60));
        let waking = async {
            tokio::task::yield_now().await;
            create(&store, &spec(json!({}))).await;
            tokio::time::Instant::now()
        };
        let (task, woken) = tokio::join!(waiting, waking);
        let task = task.unwrap().expect("it was woken");
        quickest = quickest.min(woken.elapsed());
        queue.ack(&task.receipt).await.unwrap();
    }
    assert!(quickest < Duration::from_millis(40), "{quickest:?}");
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taker_that_leaves_during_its_commit_takes_nothing_along() {
    let database = postgres().await;
    let store = database.open().await;
    // Each taking commits a second after it was told to.
    execute(
        &database.url,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON task DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
         WHEN (OLD.token IS NULL AND NEW.token IS NOT NULL) EXECUTE FUNCTION slow()",
    )
    .await;
    let queue = TaskQueue::new(store.clone(), Clock::system());
    let id = create(&store, &spec(json!({}))).await;
    let is_committing = async || {
        let sql = "SELECT COUNT(*)::text AS text FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event = 'PgSleep'";
        text_of(&database.url, sql).await != "0"
    };
    let take = async || {
        loop {
            if let Some(task) = queue.next(Duration::from_secs(600)).await.unwrap() {
                return task;
            }
        }
    };
    let leaving = async {
        while !is_committing().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        task = take() => panic!("{task:?} was taken before its commit was seen"),
        () = leaving => {}
    }
    let task = tokio::time::timeout(Duration::from_secs(10), take()).await.expect("the task comes again");
    assert_eq!(task.deployment, id);
}
