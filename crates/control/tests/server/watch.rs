//! The route watch.

use std::{collections::BTreeMap, time::Duration};

use api::{
    State,
    route::{
        Entry, Policy, RouteMessage, Targets,
        form1::{Route, RouteChange},
    },
};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use modelway_control::Config;
use reqwest::Method;
use serde_json::json;
use store::Store;

use crate::support::{PATIENCE, Plane, answer, observe, plane, plane_over, plane_with, purge, sample};

const PATH: &str = "/v1/routes/watch";

pub(crate) type Table = BTreeMap<i64, Option<Targets>>;

/// A gateway that watches.
pub(crate) struct Gateway {
    stream: BoxStream<'static, reqwest::Result<Bytes>>,
    line: Vec<u8>,
    epoch: String,
    reset: bool,
    version: i64,
    table: Table,
    policies: BTreeMap<i64, Option<Policy>>,
}

impl Gateway {
    pub(crate) async fn watch(plane: &Plane, query: &str) -> Self {
        let query = if query.is_empty() { "?protocol=2".to_owned() } else { format!("{query}&protocol=2") };
        let response = plane.request(Method::GET, &format!("{PATH}{query}")).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        let stream = Box::pin(response.bytes_stream());
        let (epoch, table) = (String::new(), Table::new());
        let mut gateway =
            Self { stream, line: Vec::new(), epoch, reset: false, version: 0, table, policies: BTreeMap::new() };
        match gateway.message().await {
            Some(RouteMessage::Hello { epoch, reset }) => (gateway.epoch, gateway.reset) = (epoch, reset),
            other => panic!("the first line greets: {other:?}"),
        }
        gateway
    }

    async fn message(&mut self) -> Option<RouteMessage> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let rest = self.line.split_off(end + 1);
                let line = std::mem::replace(&mut self.line, rest);
                return Some(serde_json::from_slice(&line).expect("a message"));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("a sign of life");
            self.line.extend_from_slice(&chunk?.expect("it arrives"));
        }
    }

    /// Reads to the next `synced`; how many targets changed.
    pub(crate) async fn sync(&mut self) -> usize {
        let mut changes = 0;
        loop {
            match self.message().await.expect("the watch goes on") {
                RouteMessage::Change(change) => match change.entry {
                    Entry::Targets { key, value } => {
                        changes += 1;
                        self.table.insert(key.0, value);
                    }
                    Entry::Endpoint { key, value } => drop(self.policies.insert(key.0, value)),
                    Entry::Unknown => panic!("a kind that nobody knows"),
                },
                RouteMessage::Synced { version } => {
                    assert!(version >= self.version, "versions grow");
                    self.version = version;
                    return changes;
                }
                RouteMessage::Hello { .. } => panic!("it greets once"),
            }
        }
    }

    /// Reads on until the table is as `holds` says.
    pub(crate) async fn until(&mut self, holds: impl Fn(&Table) -> bool) {
        while !holds(&self.table) {
            self.sync().await;
        }
    }
}

fn serves(table: &Table, id: i64) -> bool {
    table.get(&id).and_then(Option::as_ref).is_some_and(|route| route.state == State::Active)
}

#[tokio::test]
async fn a_new_gateway_gets_the_whole_table_and_then_what_changes() {
    let plane = plane().await;
    let one = plane.create(&json!({"name": "one"})).await;
    plane.activate(one).await;
    let mut gateway = Gateway::watch(&plane, "").await;
    assert!(gateway.reset);
    assert_eq!(gateway.sync().await, 1);
    assert!(serves(&gateway.table, one));

    let two = plane.create(&json!({"name": "two"})).await;
    gateway.until(|table| table.contains_key(&two)).await;
    assert!(!serves(&gateway.table, two), "it is known before it serves");
    plane.activate(two).await;
    gateway.until(|table| serves(table, two)).await;
    plane.delete(&format!("/v1/modelDeployment/{two}")).await;
    while gateway.policies[&two].as_ref().is_some_and(|policy| !policy.deleting) {
        gateway.sync().await;
    }
    assert!(serves(&gateway.table, two), "its replicas serve until they are drained");
    assert!(serves(&gateway.table, one));
}

#[tokio::test]
async fn a_gateway_that_returns_gets_only_what_it_missed() {
    let plane = plane().await;
    let (one, two) = (plane.create(&json!({})).await, plane.create(&json!({})).await);
    let mut gateway = Gateway::watch(&plane, "").await;
    gateway.sync().await;
    let (epoch, version) = (gateway.epoch.clone(), gateway.version);
    drop(gateway);
    plane.activate(two).await;
    let mut gateway = Gateway::watch(&plane, &format!("?epoch={epoch}&after={version}")).await;
    assert!(!gateway.reset);
    assert_eq!(gateway.sync().await, 1);
    assert!(serves(&gateway.table, two) && !gateway.table.contains_key(&one));
}

#[tokio::test]
async fn a_gateway_with_another_databases_table_begins_anew() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    let mut gateway = Gateway::watch(&plane, "?epoch=another&after=7").await;
    assert!(gateway.reset);
    gateway.sync().await;
    assert!(gateway.table.contains_key(&id));
    // The same database, but back in time, as after restoring a backup.
    let query = format!("?epoch={}&after=1000000", gateway.epoch);
    let mut gateway = Gateway::watch(&plane, &query).await;
    assert!(gateway.reset);
    gateway.sync().await;
    assert!(gateway.table.contains_key(&id) && gateway.version < 1_000_000);
}

#[tokio::test]
async fn a_gateway_that_was_away_for_too_long_to_be_told_what_is_gone_begins_anew() {
    let plane = plane().await;
    let (one, two) = (plane.create(&json!({})).await, plane.create(&json!({})).await);
    let mut gateway = Gateway::watch(&plane, "").await;
    gateway.sync().await;
    let before = gateway.version;
    plane.delete(&format!("/v1/modelDeployment/{one}")).await;
    purge(&plane.store, one).await;
    gateway.until(|table| table.get(&one).is_some_and(Option::is_none)).await;
    let later = api::Timestamp::from(base::Clock::system().now()).after(Duration::from_secs(25 * 3600));
    assert_eq!(plane.store.prune(later).await.expect("the database").tombstones, 1);

    let epoch = gateway.epoch.clone();
    let mut away = Gateway::watch(&plane, &format!("?epoch={epoch}&after={before}")).await;
    assert!(away.reset, "it would keep {one} for ever");
    away.sync().await;
    assert_eq!(away.table.keys().copied().collect::<Vec<_>>(), [two]);
    let told = Gateway::watch(&plane, &format!("?epoch={epoch}&after={}", gateway.version)).await;
    assert!(!told.reset);
    // Those that watch go on watching.
    let three = plane.create(&json!({})).await;
    gateway.until(|table| table.contains_key(&three)).await;
}

#[tokio::test]
async fn a_large_table_comes_whole_although_its_halves_have_changed_at_other_times() {
    let plane = plane().await;
    let spec = api::DeploymentSpec::from_json(sample()).expect("the sample");
    let now = base::Clock::system().now().into();
    let mut last = 0;
    for _ in 0..600 {
        last = plane.store.deployment_create(&spec, None, now).await.expect("it is made").id.0;
    }
    for id in 1..=last {
        observe(&plane.store, id, State::Active).await;
    }
    let mut gateway = Gateway::watch(&plane, "").await;
    assert_eq!((gateway.sync().await, gateway.policies.len()), (600, 600));
    assert!(gateway.table.contains_key(&last) && gateway.policies.contains_key(&last));
}

#[tokio::test]
async fn a_quiet_watch_shows_signs_of_life() {
    let plane = plane_with(Config { watch_heartbeat_ms: 20, ..Config::default() }).await;
    let mut gateway = Gateway::watch(&plane, "").await;
    gateway.sync().await;
    let version = gateway.version;
    for _ in 0..3 {
        assert_eq!(gateway.sync().await, 0);
    }
    assert_eq!(gateway.version, version);
}

#[tokio::test]
async fn a_change_reaches_every_watcher_although_one_does_not_read() {
    let plane = plane().await;
    let slow = plane.request(Method::GET, PATH).send().await.expect("an answer");
    let mut gateways = Vec::new();
    for _ in 0..3 {
        let mut gateway = Gateway::watch(&plane, "").await;
        gateway.sync().await;
        gateways.push(gateway);
    }
    for _ in 0..20 {
        let id = plane.create(&json!({})).await;
        // One that joins now has read what the others still wait for.
        let mut late = Gateway::watch(&plane, "").await;
        late.sync().await;
        for gateway in &mut gateways {
            gateway.until(|table| table.contains_key(&id)).await;
        }
    }
    drop(slow);
}

#[tokio::test]
async fn what_another_process_wrote_is_found_without_a_hint() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("modelway.db").display());
    let open = || async { Store::open(&url, PATIENCE).await.expect("a database") };
    let plane = plane_over(open().await, Config::default()).await;
    let elsewhere = open().await;
    let id = plane.create(&json!({})).await;
    let mut gateway = Gateway::watch(&plane, "").await;
    gateway.sync().await;
    observe(&elsewhere, id, State::Active).await;
    gateway.until(|table| serves(table, id)).await;
}

#[tokio::test]
async fn gateways_that_watch_while_the_database_is_restored_begin_anew() {
    let plane = plane().await;
    let id = plane.create(&json!({})).await;
    let mut gateway = Gateway::watch(&plane, "").await;
    gateway.sync().await;
    // The look-out has read the first epoch when it tells of this.
    plane.activate(id).await;
    gateway.until(|table| serves(table, id)).await;
    let (_, renewed) = plane.store.epoch_renew(&api::Epoch(gateway.epoch.clone())).await.expect("the database");
    assert!(renewed);
    while gateway.message().await.is_some() {}

    let query = format!("?epoch={}&after={}", gateway.epoch, gateway.version);
    let mut gateway = Gateway::watch(&plane, &query).await;
    assert!(gateway.reset);
    gateway.until(|table| serves(table, id)).await;
    let other = plane.create(&json!({"name": "other"})).await;
    gateway.until(|table| table.contains_key(&other)).await;
}

#[tokio::test]
async fn a_watch_ends_with_the_control_plane() {
    let plane = plane().await;
    let mut gateway = Gateway::watch(&plane, "").await;
    gateway.sync().await;
    plane.tasks.stop();
    while let Some(message) = gateway.message().await {
        assert!(matches!(message, RouteMessage::Synced { .. }), "{message:?}");
    }
    tokio::time::timeout(PATIENCE, plane.ended)
        .await
        .expect("it ends")
        .expect("without a panic")
        .expect("in good order");
}

#[tokio::test]
async fn watchers_beyond_the_bound_are_refused_and_those_that_leave_make_room() {
    let plane = plane_with(Config { max_watchers: 1, ..Config::default() }).await;
    let gateway = Gateway::watch(&plane, "").await;
    answer(plane.request(Method::GET, PATH)).await.refused(503, "busy").saying("control.max_watchers");
    drop(gateway);
    let freed = async {
        while plane.request(Method::GET, PATH).send().await.expect("an answer").status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("its place is free again");
    plane.get(&format!("{PATH}?afer=1")).await.refused(400, "invalid_query").saying("`after`");
}

/// The lines of a watch as a gateway of 0.1.0 reads them, to the first `synced`.
async fn whole_routes(plane: &Plane, query: &str) -> Vec<RouteChange> {
    let response = plane.request(Method::GET, &format!("{PATH}{query}")).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let mut stream = response.bytes_stream();
    let (mut text, mut changes) = (Vec::new(), Vec::new());
    while !text.windows(8).any(|window| window == b"\"synced\"") {
        text.extend_from_slice(&stream.next().await.expect("more").expect("it arrives"));
    }
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if let RouteMessage::Change(change) = serde_json::from_slice(line).expect("a message of 0.1.0") {
            changes.push(change);
        }
    }
    changes
}

#[tokio::test]
async fn a_gateway_of_0_1_0_is_told_whole_routes() {
    let plane = plane().await;
    let id = plane.create(&json!({"name": "iris", "request_timeout_ms": 70})).await;
    plane.activate(id).await;
    for query in ["", "?protocol=1"] {
        let told = whole_routes(&plane, query).await;
        let Route { name, state, revisions, request_timeout_ms, .. } = told[0].route.clone().expect("it serves");
        assert_eq!((name.as_deref(), state, request_timeout_ms), (Some("iris"), State::Active, 70), "{query}");
        assert_eq!(revisions[0].replicas.len(), 1);
    }
    let mut gateway = Gateway::watch(&plane, "").await;
    gateway.sync().await;
    assert_eq!(gateway.policies[&id].as_ref().and_then(|policy| policy.name.as_deref()), Some("iris"));
}

#[tokio::test]
async fn a_protocol_of_a_later_version_is_refused_in_words() {
    let plane = plane().await;
    plane
        .get(&format!("{PATH}?protocol=3"))
        .await
        .refused(400, "invalid_query")
        .saying("upgrade control planes before");
    plane.get(&format!("{PATH}?protocol=0")).await.refused(400, "invalid_query").saying("whole number from 1");
}
