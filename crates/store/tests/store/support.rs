//! Databases for tests, and short words for what the tests do with them.

use std::{
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use api::{
    DeploymentId, DeploymentSpec, DeploymentStatus, ReplicaId, RevisionNumber, State, Timestamp,
    replica::Address,
    route::{RouteReplica, RouteRevision, Targets},
};
use serde_json::{Value, json};
use sqlx::Connection as _;
use store::{Lease, Order, Store};

/// Runs each test on SQLite and on PostgreSQL.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::support::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::support::postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_both;

/// Noon of some day.
pub(crate) const NOW: Timestamp = Timestamp(1_741_486_593_792_720);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A database of one test's own.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) folder: Option<tempfile::TempDir>,
}

impl Database {
    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url, Duration::from_secs(30)).await.expect("the database opens")
    }
}

pub(crate) fn sqlite() -> Database {
    let folder = tempfile::tempdir().unwrap();
    Database { url: format!("sqlite://{}/modelway.db", folder.path().display()), folder: Some(folder) }
}

/// One server for all tests of this process. It ends when the process does, however that ends.
static SERVER: LazyLock<Result<String, String>> = LazyLock::new(|| {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/postgres.sh");
    let folder = std::env::temp_dir().join(format!("modelway-postgres-{}", std::process::id()));
    let output = Command::new(script)
        .arg("start")
        .arg(folder)
        .args(["--with", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{script}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
});

pub(crate) async fn postgres() -> Database {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let server = match &*SERVER {
        Ok(url) => url,
        Err(reason) => panic!("these tests need a PostgreSQL server: {reason}"),
    };
    let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
    execute(server, &format!("CREATE DATABASE {name}")).await;
    Database { url: format!("{}/{name}", server.trim_end_matches("/postgres")), folder: None }
}

/// Runs SQL beside the store.
pub(crate) async fn execute(url: &str, sql: &str) {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The column `text` of the one row that a query gives, read beside the store.
pub(crate) async fn text_of(url: &str, sql: &str) -> String {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
    let text = sqlx::Row::try_get(&row, "text").unwrap();
    connection.close().await.unwrap();
    text
}

/// A specification like the public sample, with `changes` on top.
pub(crate) fn spec(changes: Value) -> DeploymentSpec {
    let mut value = json!({
        "type": "cpu",
        "model": {"version": "v1", "type": "single", "bucket": "s3://demmodels/", "prefix": "models"},
        "replicas": 1,
        "request_res": {"cpu": "500m", "memory": "512Mi"},
        "limit_res": {"cpu": "1", "memory": "1Gi"}
    });
    for (field, change) in changes.as_object().unwrap() {
        value[field] = change.clone();
    }
    DeploymentSpec::from_json(value).unwrap()
}

pub(crate) fn named(name: &str) -> DeploymentSpec {
    spec(json!({"name": name}))
}

/// A specification whose `n` makes a revision of its own.
pub(crate) fn content(n: usize) -> DeploymentSpec {
    spec(json!({"name": "iris", "env": {"N": n.to_string()}}))
}

pub(crate) async fn create(store: &Store, spec: &DeploymentSpec) -> DeploymentId {
    store.deployment_create(spec, None, NOW).await.unwrap().id
}

pub(crate) async fn hold(store: &Store, id: DeploymentId) -> Lease {
    store.lease_acquire(id, "worker-1", SECOND * 30, NOW).await.unwrap().expect("nobody holds it")
}

pub(crate) fn status(state: State, serving: Option<u32>) -> DeploymentStatus {
    DeploymentStatus {
        state,
        ready_replicas: serving.map_or(0, |_| 1),
        serving_revision: serving.map(RevisionNumber),
        ..DeploymentStatus::pending()
    }
}

/// What a worker writes.
pub(crate) fn targets(number: u32, address: &str) -> Targets {
    Targets {
        state: State::Active,
        reason: None,
        answers_to: None,
        revisions: vec![RouteRevision {
            number: RevisionNumber(number),
            model_version: "v1".into(),
            weight: 1,
            replicas: vec![RouteReplica {
                id: ReplicaId(format!("md-1-r{number}-0")),
                address: Address::Tcp(address.into()),
            }],
        }],
    }
}

/// The kinds of all events of a deployment.
pub(crate) async fn event_kinds(store: &Store, id: DeploymentId) -> Vec<String> {
    let page = store.event_list(Some(id), Order::OldestFirst, None, 1000).await.unwrap();
    page.items.into_iter().map(|event| event.kind).collect()
}
