//! Opening a database: new, old, newer, damaged, foreign, absent, and at the same moment as others.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use base::error::chain;
use serde_json::json;
use store::{Order, Store, StoreError};

use crate::support::{Database, NOW, create, execute, named, on_both, spec, sqlite};

/// Names the database to the test that runs as a process of its own.
const URL: &str = "MODELWAY_TEST_OPEN";

on_both! {
    many_open_a_new_database_at_once
    a_newer_database_is_refused_untouched
    an_interrupted_migration_is_made_good_by_the_next
    a_migration_that_fails_leaves_the_database_to_the_older_version
    every_database_has_a_name_of_its_own
    many_writers_in_several_processes_do_not_fail_each_other
    a_caller_that_leaves_in_the_middle_harms_nobody
}

async fn a_caller_that_leaves_in_the_middle_harms_nobody(database: Database) {
    let (store, other) = (database.open().await, database.open().await);
    // It leaves at the first moment at which it would have to wait, at the second, and so on.
    for moment in 1..60 {
        let spec = named(&format!("left{moment}"));
        let mut creation = Box::pin(store.deployment_create(&spec, None, NOW));
        let mut waits = 0;
        std::future::poll_fn(|context| match creation.as_mut().poll(context) {
            std::task::Poll::Pending if waits + 1 < moment => {
                waits += 1;
                std::task::Poll::Pending
            }
            std::task::Poll::Ready(_) | std::task::Poll::Pending => std::task::Poll::Ready(()),
        })
        .await;
        drop(creation);
        let id = create(&store, &named(&format!("stayed{moment}"))).await;
        assert!(other.deployment_get(id).await.is_ok(), "what was answered is there for others");
    }
    // All or nothing of each that was left.
    let page = other.deployment_list(&store::DeploymentFilter::default(), None, 1000).await.unwrap();
    for record in page.items {
        assert_eq!(other.event_list(Some(record.id), Order::OldestFirst, None, 9).await.unwrap().items.len(), 1);
        assert!(other.deployment_wanted(record.id, &[]).await.unwrap().is_some());
    }
}

async fn many_open_a_new_database_at_once(database: Database) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = database.url.clone();
        tasks.spawn(async move { Store::open(&url, Duration::from_secs(30)).await?.epoch().await });
    }
    let epochs: Vec<_> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "{epochs:?}");
    database.open().await.ping().await.unwrap();
}

async fn a_newer_database_is_refused_untouched(database: Database) {
    drop(database.open().await);
    execute(&database.url, "INSERT INTO modelway_schema (version) VALUES (999)").await;
    let file = database.url.trim_start_matches("sqlite://").to_owned();
    let before = database.folder.as_ref().map(|_| std::fs::read(&file).unwrap());
    let error = Store::open(&database.url, Duration::from_secs(30)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 999, known: 1.. }), "{error:?}");
    assert_eq!(before, database.folder.as_ref().map(|_| std::fs::read(&file).unwrap()));
}

async fn an_interrupted_migration_is_made_good_by_the_next(database: Database) {
    let mut interrupted = 0;
    for round in 0..12 {
        // A fresh schema in the same database, so that the child begins with the first migration.
        let fresh = if database.folder.is_some() {
            sqlite()
        } else {
            execute(&database.url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
            Database { url: database.url.clone(), folder: None }
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "opening::opens_for_another_test", "--nocapture"])
            .env(URL, &fresh.url)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with("child: opening")), "the child began");
        // Spread over the time that a migration takes.
        std::thread::sleep(Duration::from_millis(2) * round);
        child.kill().unwrap();
        interrupted += usize::from(!lines.any(|line| line.ends_with("child: opened")));
        child.wait().unwrap();

        let store = fresh.open().await;
        create(&store, &named("iris")).await;
        assert_eq!(store.deployment_count().await.unwrap()[0].1, 1);
    }
    assert!(interrupted > 0, "no child was interrupted: the test shows nothing");
}

async fn a_migration_that_fails_leaves_the_database_to_the_older_version(database: Database) {
    let store = database.open().await;
    let made = create(&store, &named("iris")).await;
    drop(store);
    let schema = async || Store::inspect(&database.url, Duration::from_secs(5)).await.unwrap().expect("it is there");
    let known = schema().await.known;
    // As the first migration left it, with the last thing that the second one makes in its way.
    execute(&database.url, "DROP TABLE gone; DELETE FROM modelway_schema WHERE version > 1").await;
    let error = Store::open(&database.url, Duration::from_secs(5)).await.expect_err("something is in the way");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert_eq!(schema().await.found, 1, "the version before still fits");
    // What the second one had made already is not there: making it works.
    let again = "CREATE TABLE gone (deployment BIGINT NOT NULL PRIMARY KEY, at BIGINT NOT NULL)";
    execute(&database.url, again).await;
    for version in 2..=known {
        execute(&database.url, &format!("INSERT INTO modelway_schema (version) VALUES ({version})")).await;
    }
    let store = database.open().await;
    assert_eq!(store.deployment_get(made).await.unwrap().id, made, "nothing was lost");
}

/// Does nothing unless the test above starts it as a process of its own.
#[tokio::test]
async fn opens_for_another_test() {
    #[allow(clippy::disallowed_methods, reason = "the test harness takes no arguments of ours")]
    if let Ok(url) = std::env::var(URL) {
        println!("child: opening");
        Store::open(&url, Duration::from_secs(30)).await.unwrap();
        println!("child: opened");
    }
}

async fn every_database_has_a_name_of_its_own(database: Database) {
    let store = database.open().await;
    let epoch = store.epoch().await.unwrap();
    assert_eq!(database.open().await.epoch().await.unwrap(), epoch);
    let other = Store::open("memory:", Duration::ZERO).await.unwrap();
    assert_ne!(other.epoch().await.unwrap(), epoch);
}

async fn many_writers_in_several_processes_do_not_fail_each_other(database: Database) {
    let mut tasks = tokio::task::JoinSet::new();
    for process in 0..4 {
        // Each with its own connections, as another process would be.
        let store = database.open().await;
        for task in 0..3 {
            let store = store.clone();
            tasks.spawn(async move {
                for n in 0..8 {
                    let id = create(&store, &named(&format!("m{process}-{task}-{n}"))).await;
                    store.deployment_replace(id, &spec(json!({"replicas": 2})), None, NOW).await.unwrap();
                    store.deployment_get(id).await.unwrap();
                }
            });
        }
    }
    tasks.join_all().await;
    let store = database.open().await;
    assert_eq!(store.deployment_count().await.unwrap()[0].1, 96);
}

#[tokio::test]
async fn a_server_that_drops_its_connections_is_asked_again() {
    let database = crate::support::postgres().await;
    let store = database.open().await;
    for n in 0..3 {
        create(&store, &named(&format!("m{n}"))).await;
        execute(
            &database.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    }
    assert_eq!(store.deployment_count().await.unwrap()[0].1, 3);
}

#[tokio::test]
async fn a_new_file_is_its_owners_alone_and_readers_do_not_wait_for_writers() {
    let database = sqlite();
    let store = database.open().await;
    create(&store, &named("iris")).await;
    let folder = database.folder.as_ref().unwrap().path();
    for file in ["modelway.db", "modelway.db-wal"] {
        let mode = std::fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn databases_in_memory_are_apart() {
    let stores =
        [Store::open("memory:", Duration::ZERO).await.unwrap(), Store::open("memory:", Duration::ZERO).await.unwrap()];
    create(&stores[0], &named("iris")).await;
    assert_eq!(stores[0].clone().deployment_count().await.unwrap()[0].1, 1);
    assert_eq!(stores[1].deployment_count().await.unwrap()[0].1, 0);
}

async fn refused(url: &str) -> (StoreError, Duration) {
    let started = Instant::now();
    let error = Store::open(url, Duration::from_secs(20)).await.unwrap_err();
    (error, started.elapsed())
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let database = sqlite();
    let file = database.folder.as_ref().unwrap().path().join("modelway.db");
    let garbage = "not a database ".repeat(1000);
    std::fs::write(&file, &garbage).unwrap();
    let (error, _) = refused(&database.url).await;
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(chain(&error).contains("restore it from a backup"), "{}", chain(&error));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), garbage);
}

#[tokio::test]
async fn a_damaged_page_is_said() {
    let database = sqlite();
    let store = database.open().await;
    for n in 0..50 {
        create(&store, &named(&format!("m{n}"))).await;
    }
    drop(store);
    execute(&database.url, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let file = database.folder.as_ref().unwrap().path().join("modelway.db");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[8192..].fill(0xA5);
    std::fs::write(&file, bytes).unwrap();
    let outcome = async {
        let store = Store::open(&database.url, Duration::from_secs(1)).await?;
        store.deployment_list(&store::DeploymentFilter::default(), None, 100).await
    };
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let database = sqlite();
    let url = format!("{}?mode=rwc", database.url);
    execute(&url, "CREATE TABLE bookmarks (url TEXT)").await;
    let (error, _) = refused(&database.url).await;
    assert!(chain(&error).contains("bookmarks"), "{}", chain(&error));
    execute(&url, "DROP TABLE bookmarks").await;
    database.open().await;
}

#[tokio::test]
async fn what_waiting_cannot_help_is_said_at_once() {
    for (url, word) in [
        ("sqlite:///nowhere/at/all/modelway.db", "/nowhere/at/all/modelway.db"),
        ("sqlite:///tmp/x.db?mode=ro", "without options"),
        ("mysql://me:secret@host/db", "postgres://"),
    ] {
        let (error, took) = refused(url).await;
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(chain(&error).contains(word) && !chain(&error).contains("secret"), "{}", chain(&error));
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_waited_for_as_long_as_was_said() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = Instant::now();
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let error = Store::open(&url, Duration::from_millis(600)).await.unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(300), "it tried again");
    assert!(chain(&error).contains("refused"), "{}", chain(&error));
}
