//! Ten thousand deployments: what a person and a scan wait for. Prints its figures with `--nocapture`.

use std::time::{Duration, Instant};

use api::DeploymentId;
use base::Clock;
use serde_json::json;
use store::{DeploymentFilter, Store, TaskQueue};

use crate::support::{Database, create, execute, on_both, spec};

const MANY: i64 = 10_000;

on_both! {
    ten_thousand_deployments_are_listed_and_scanned_quickly
    a_task_is_taken_quickly_behind_ten_thousand_of_another_placement
}

async fn ten_thousand_deployments(database: &Database) -> Store {
    let store = database.open().await;
    create(&store, &spec(json!({"labels": {"team": "a"}, "env": {"PADDING": "x".repeat(1000)}}))).await;
    execute(
        &database.url,
        &format!(
            "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) \
             INSERT INTO deployment (id, name, state, replicas, revision, generation, settled_generation, created_at, \
             updated_at, spec, status) SELECT i, 'm' || i, 'active', 1, 1, 1, 1, created_at, updated_at, spec, status \
             FROM n, deployment WHERE id = 1; \
             INSERT INTO deployment_label (deployment, name, value) \
             SELECT id, 'team', CASE WHEN id % 100 = 0 THEN 'rare' ELSE 'a' END FROM deployment WHERE id > 1"
        ),
    )
    .await;
    store
}

async fn ten_thousand_deployments_are_listed_and_scanned_quickly(database: Database) {
    let store = ten_thousand_deployments(&database).await;

    let all = DeploymentFilter::default();
    let rare = DeploymentFilter { labels: vec![("team".into(), "rare".into())], ..all.clone() };
    let common = DeploymentFilter { labels: vec![("team".into(), "a".into())], ..all.clone() };
    let named = DeploymentFilter { name: Some("m9999".into()), ..all.clone() };
    for (what, filter) in [("any", &all), ("a rare label", &rare), ("a common label", &common), ("a name", &named)] {
        let mut times = Vec::new();
        for after in (0..9).map(|step| step * MANY / 10) {
            let started = Instant::now();
            store.deployment_list(filter, Some(after), 100).await.unwrap();
            times.push(started.elapsed());
        }
        times.sort_unstable();
        println!("list of 100 by {what}: median {:?}, slowest {:?}", times[times.len() / 2], times[times.len() - 1]);
        assert!(times[times.len() / 2] < Duration::from_millis(50), "{what}: {times:?}");
    }

    let started = Instant::now();
    assert_eq!(scan(&store).await, MANY);
    println!("scan of {MANY} in pages of 2,000: {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

async fn a_task_is_taken_quickly_behind_ten_thousand_of_another_placement(database: Database) {
    let store = ten_thousand_deployments(&database).await;
    execute(
        &database.url,
        "INSERT INTO task (deployment, due_at, placement) SELECT id, id, placement FROM deployment WHERE id > 1; \
         UPDATE deployment SET placement = 'east' WHERE id = 1; DELETE FROM task WHERE deployment = 1",
    )
    .await;
    let queue = TaskQueue::new(store.placed("east"), Clock::system());
    let mut times = Vec::new();
    for _ in 0..9 {
        queue.wake(DeploymentId(1), Duration::ZERO).await.unwrap();
        let started = Instant::now();
        let task = queue.next(Duration::from_secs(60)).await.unwrap().expect("it is due");
        times.push(started.elapsed());
        assert_eq!(task.deployment, DeploymentId(1));
        queue.ack(&task.receipt).await.unwrap();
    }
    times.sort_unstable();
    println!("taking a task: median {:?}, slowest {:?}", times[times.len() / 2], times[times.len() - 1]);
    assert!(times[times.len() / 2] < Duration::from_millis(100), "{times:?}");
}

async fn scan(store: &Store) -> i64 {
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = store.deployment_scan(after, 2_000).await.unwrap();
        seen += i64::try_from(page.items.len()).unwrap();
        after = page.next;
        if after.is_none() {
            return seen;
        }
    }
}
