//! A control plane to ask, and short ways to ask it.

use std::{net::SocketAddr, time::Duration};

use api::{
    DeploymentId, DeploymentStatus, ReplicaId, State,
    deployment::StatusError,
    replica::Address,
    route::{RouteReplica, RouteRevision, Targets},
};
use base::{Clock, Tasks};
use modelway_control::{Config, ControlError};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use store::Store;
use tokio::{net::TcpListener, task::JoinHandle};

/// Longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running control plane.
pub(crate) struct Plane {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) tasks: Tasks,
    pub(crate) ended: JoinHandle<Result<(), ControlError>>,
    pub(crate) client: reqwest::Client,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

/// The seed's own sample.
pub(crate) fn sample() -> Value {
    json!({
        "type": "cpu",
        "model": {"version": "v1", "type": "single", "bucket": "s3://demmodels/", "prefix": "models"},
        "replicas": 1,
        "request_res": {"cpu": "500m", "memory": "512Mi"},
        "limit_res": {"cpu": "1", "memory": "1Gi"}
    })
}

/// The sample with other fields.
pub(crate) fn sample_with(fields: &Value) -> Value {
    let mut payload = sample();
    for (field, value) in fields.as_object().expect("an object") {
        payload[field] = value.clone();
    }
    payload
}

pub(crate) async fn memory() -> Store {
    Store::open("memory:", PATIENCE).await.expect("a database in memory")
}

/// A control plane with the default settings over a database of its own.
pub(crate) async fn plane() -> Plane {
    plane_over(memory().await, Config::default()).await
}

pub(crate) async fn plane_with(config: Config) -> Plane {
    plane_over(memory().await, config).await
}

pub(crate) async fn plane_over(store: Store, config: Config) -> Plane {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let tasks = Tasks::new();
    let run = modelway_control::run(config, store.clone(), store.wake_ups(), listener, tasks.clone(), Clock::system());
    let ended = tasks.spawn(run);
    let client = base::client::builder().timeout(PATIENCE).build().expect("a client");
    Plane { address, store, tasks, ended, client }
}

impl Plane {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PUT, path).json(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PATCH, path).json(body)).await
    }

    /// Creates a deployment from the sample with other fields; its id.
    pub(crate) async fn create(&self, fields: &Value) -> i64 {
        let made = self.post("/v1/modelDeployment", &sample_with(fields)).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body["id"].as_i64().expect("an integer id")
    }

    /// Does what a worker does when all replicas are ready.
    pub(crate) async fn activate(&self, id: i64) {
        observe(&self.store, id, State::Active).await;
    }

    /// The same, by a worker of another placement.
    pub(crate) async fn activate_in(&self, placement: &str, id: i64) {
        observe(&self.store.placed(placement), id, State::Active).await;
    }
}

/// Does what a worker does when nothing of a deleted deployment runs any more.
pub(crate) async fn purge(store: &Store, id: i64) {
    let now = Clock::system().now().into();
    let lease = store.lease_acquire(DeploymentId(id), "test", PATIENCE, now).await.expect("the database");
    store.deployment_purge(&lease.expect("nobody holds it"), now).await.expect("it is gone");
}

/// Does what a worker does when it has looked at a deployment.
pub(crate) async fn observe(store: &Store, id: i64, state: State) {
    let id = DeploymentId(id);
    let now = Clock::system().now().into();
    let record = store.deployment_get(id).await.expect("the deployment");
    let lease = store.lease_acquire(id, "test", PATIENCE, now).await.expect("the database").expect("nobody holds it");
    let ready = u32::from(state == State::Active);
    let error = (state == State::Failed).then(|| StatusError {
        code: "crash_loop".into(),
        message: "the replica ended 3 times".into(),
        revision: record.revision,
        log: vec!["no such file".into()],
    });
    let status = DeploymentStatus {
        state,
        ready_replicas: ready,
        serving_revision: Some(record.revision),
        error,
        ..DeploymentStatus::pending()
    };
    let replica = RouteReplica { id: ReplicaId(format!("{id}-r1-0")), address: Address::Tcp("127.0.0.1:9".into()) };
    let targets = Targets {
        state,
        reason: None,
        answers_to: record.spec.name.clone(),
        revisions: vec![RouteRevision {
            number: record.revision,
            model_version: "v1".into(),
            weight: 100,
            replicas: vec![replica; ready as usize],
        }],
    };
    let generation = Some(record.generation);
    store.deployment_observed(&lease, &status, Some(&targets), &[], generation, now).await.expect("it is written");
    store.lease_release(&lease).await.expect("it is let go");
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    read(request.send().await.expect("an answer")).await
}

pub(crate) async fn read(response: Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// Asserts that this is a refusal in the one form that all have.
    pub(crate) fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert_eq!(self.body["status"], status, "{}", self.body);
        assert!(self.body["title"].is_string(), "{}", self.body);
        self
    }

    /// Asserts that the detail says so.
    pub(crate) fn saying(&self, words: &str) -> &Self {
        let detail = self.body["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words), "{words:?} is not in {detail:?}");
        self
    }

    /// Where the faults are, in order.
    pub(crate) fn fault_pointers(&self) -> Vec<&str> {
        let faults = self.body["faults"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut pointers: Vec<_> = faults.iter().filter_map(|fault| fault["pointer"].as_str()).collect();
        pointers.sort_unstable();
        pointers
    }
}
