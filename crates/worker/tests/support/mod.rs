//! A place for workers to work at: a real database, a pretended machine, and helpers that wait.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod around;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    DeploymentId, DeploymentSpec, State, Timestamp,
    deployment::{BucketModel, LogPayloads, MachineType, ModelSource, Resources},
    route::form1::Route,
};
use backend::{
    Backend,
    fake::{self, FakeBackend},
};
use base::{Clock, Tasks};
use modelway_worker::{Config, WorkerError};
use store::{DeploymentRecord, Order, Store, StoreError};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) store: Store,
    pub(crate) machine: FakeBackend,
    pub(crate) clock: Clock,
}

/// A worker that runs, on tasks and on a database connection of its own.
pub(crate) struct Running {
    pub(crate) tasks: Tasks,
    pub(crate) addr: String,
    done: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    /// Ends it in good order.
    pub(crate) async fn stop(self) {
        self.tasks.stop();
        within("the worker to end", self.done).await.expect("no panic").expect("no error");
    }
}

/// Settings with short waits.
pub(crate) fn quick() -> Config {
    Config { route_settle_ms: 40, scan_interval_ms: 200, lease_ms: 1_000, ..Config::default() }
}

pub(crate) fn spec(name: &str, replicas: u32) -> DeploymentSpec {
    let model = BucketModel {
        version: "v1".into(),
        kind: "single".into(),
        bucket: "/models".into(),
        prefix: "iris".into(),
        digest: None,
    };
    DeploymentSpec {
        name: Some(name.to_owned()),
        labels: BTreeMap::new(),
        placement: None,
        machine: MachineType::Cpu,
        model: ModelSource::Bucket(model),
        replicas,
        request_res: Resources::default(),
        limit_res: Resources::default(),
        env: BTreeMap::new(),
        env_from_file: BTreeMap::new(),
        python: None,
        request_timeout_ms: 1_000,
        idempotent: true,
        log_payloads: LogPayloads::None,
    }
}

/// The same, but its replicas behave like this.
pub(crate) fn behaving(mut spec: DeploymentSpec, behaviour: &str) -> DeploymentSpec {
    spec.env.insert(fake::BEHAVIOUR.to_owned(), behaviour.to_owned());
    spec
}

impl Site {
    pub(crate) async fn new(config: fake::Config) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder).await;
        let clock = Clock::system();
        let machine = FakeBackend::new(config, Tasks::new(), clock.clone());
        Self { folder, store, machine, clock }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    pub(crate) async fn start(&self, config: Config) -> Running {
        self.start_over(config, Arc::new(self.machine.clone())).await
    }

    /// A worker whose backend is something around the machine.
    pub(crate) async fn start_over(&self, config: Config, backend: Arc<dyn Backend>) -> Running {
        let store = open(&self.folder).await;
        self.start_with(config, store, backend).await
    }

    pub(crate) async fn start_with(&self, config: Config, store: Store, backend: Arc<dyn Backend>) -> Running {
        let wake_ups = store.wake_ups();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address").to_string();
        let tasks = Tasks::new();
        let worker =
            modelway_worker::run(config, store, wake_ups, backend, listener, tasks.clone(), self.clock.clone());
        let done = tasks.child().spawn(worker);
        Running { tasks, addr, done }
    }

    pub(crate) async fn create(&self, spec: &DeploymentSpec) -> DeploymentId {
        self.store.deployment_create(spec, None, self.now()).await.expect("create").id
    }

    pub(crate) async fn replace(&self, id: DeploymentId, spec: &DeploymentSpec) {
        self.store.deployment_replace(id, spec, None, self.now()).await.expect("replace");
    }

    /// The record, or `None` once it is gone.
    pub(crate) async fn record(&self, id: DeploymentId) -> Option<DeploymentRecord> {
        match self.store.deployment_get(id).await {
            Ok(record) => Some(record),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => panic!("{error:?}"),
        }
    }

    pub(crate) async fn until(&self, id: DeploymentId, state: State) -> DeploymentRecord {
        let what = format!("{id} to be {state}");
        eventually(&what, || async { self.record(id).await.filter(|record| record.status.state == state) }).await
    }

    pub(crate) async fn replicas(&self, id: DeploymentId) -> usize {
        self.machine.observe(id).await.expect("observe").len()
    }

    pub(crate) async fn route(&self, id: DeploymentId) -> Option<Route> {
        let page = self.store.route_changes(0, 10_000).await.expect("routes");
        page.whole_routes().into_iter().find(|change| change.deployment == id).and_then(|change| change.route)
    }

    pub(crate) async fn event_kinds(&self, id: DeploymentId) -> Vec<String> {
        let page = self.store.event_list(Some(id), Order::OldestFirst, None, 1_000).await.expect("events");
        page.items.into_iter().map(|event| event.kind).collect()
    }
}

pub(crate) async fn open(folder: &TempDir) -> Store {
    let url = format!("sqlite://{}", folder.path().join("modelway.db").display());
    Store::open(&url, PATIENCE).await.expect("a database")
}

/// From here on, no task that is queued is ever there.
pub(crate) async fn lose_every_task(folder: &TempDir) {
    use sqlx::Connection as _;
    let url = format!("sqlite://{}", folder.path().join("modelway.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("a connection");
    let trigger = "CREATE TRIGGER lose AFTER INSERT ON task BEGIN DELETE FROM task; END";
    sqlx::raw_sql(trigger).execute(&mut connection).await.expect("a trigger");
    connection.close().await.expect("closed");
}

/// Waits until `look` gives something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, looking).await
}

pub(crate) async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}
