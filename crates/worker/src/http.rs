//! The worker's own HTTP server: the logs of its replicas, health and metrics.
//!
//! **Invariant:** it only tells. Nothing can be changed here.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use api::{DeploymentId, Problem, ReplicaId};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use backend::{Backend, BackendError};
use base::Tasks;
use futures::StreamExt;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use store::Store;
use tokio::net::TcpListener;

use crate::logs;

/// How many lines of a log are shown unless asked for otherwise.
const TAIL: usize = 100;
/// The most lines that can be asked for.
const MAX_TAIL: usize = 10_000;

/// What the handlers answer from.
#[derive(Clone)]
pub(crate) struct Front {
    backend: Arc<dyn Backend>,
    store: Store,
    registry: Arc<Registry>,
    scanned: Arc<AtomicBool>,
    tasks: Tasks,
    allowed_hosts: Arc<[String]>,
}

impl Front {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        store: Store,
        registry: Arc<Registry>,
        scanned: Arc<AtomicBool>,
        tasks: Tasks,
        allowed_hosts: Vec<String>,
    ) -> Self {
        Self { backend, store, registry, scanned, tasks, allowed_hosts: allowed_hosts.into() }
    }
}

/// Answers until told to end.
pub(crate) async fn serve(listener: TcpListener, front: Front, tasks: Tasks) {
    let router = Router::new()
        .route("/v1/replicas/{replica}/logs", get(replica_logs))
        .route("/v1/deployments/{id}/logs", get(deployment_logs))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "not_found", "there is no such page on a worker") })
        .layer(middleware::from_fn_with_state(front.clone(), guard))
        .with_state(front);
    let end = async move { tasks.stopping().await };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(end).await {
        tracing::error!(%error, "the worker's HTTP server has ended; logs cannot be shown");
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    #[serde(default)]
    tail: Option<usize>,
    #[serde(default)]
    follow: bool,
}

impl LogQuery {
    fn tail(&self) -> usize {
        self.tail.unwrap_or(TAIL).min(MAX_TAIL)
    }
}

async fn guard(State(front): State<Front>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
    match base::guard::check(request.headers(), authority, &front.allowed_hosts) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(refusal.status(), refusal.code(), refusal.to_string()),
    }
}

async fn replica_logs(
    State(front): State<Front>,
    Path(replica): Path<String>,
    Query(query): Query<LogQuery>,
) -> Response {
    let id = ReplicaId(replica);
    match front.backend.logs(&id, query.tail(), query.follow).await {
        Ok(Some(log)) => text(log, &front),
        Ok(None) => refuse(StatusCode::NOT_FOUND, "not_found", format!("there is no replica {id} here")),
        Err(error) => unavailable(&error),
    }
}

async fn deployment_logs(
    State(front): State<Front>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Response {
    let id: DeploymentId = match id.parse() {
        Ok(id) => id,
        Err(error) => return refuse(StatusCode::NOT_FOUND, "not_found", error),
    };
    match logs::of_deployment(Arc::clone(&front.backend), id, query.tail(), query.follow).await {
        Ok(Some(log)) => text(log, &front),
        Ok(None) => refuse(StatusCode::NOT_FOUND, "not_found", format!("{id} has no replicas here")),
        Err(error) => unavailable(&error),
    }
}

async fn ready(State(front): State<Front>) -> Response {
    if !front.scanned.load(Ordering::Acquire) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the first scan is not completed yet");
    }
    match front.store.ping().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, "not_ready", error),
    }
}

async fn metrics(State(front): State<Front>) -> Response {
    ([(CONTENT_TYPE, base::metrics::CONTENT_TYPE)], base::metrics::encode(&front.registry)).into_response()
}

/// A log as a body that ends when the worker does.
fn text(log: logs::Log, front: &Front) -> Response {
    let tasks = front.tasks.clone();
    let log = log.take_until(async move { tasks.stopping().await });
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(log)).into_response()
}

fn unavailable(error: &BackendError) -> Response {
    tracing::warn!(error = error as &dyn std::error::Error, "a log could not be read");
    refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error)
}

fn refuse(status: StatusCode, code: &str, detail: impl ToString) -> Response {
    let problem = Problem {
        status: status.as_u16(),
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        code: code.to_owned(),
        detail: detail.to_string(),
        faults: Vec::new(),
    };
    let mut response = (status, Json(problem)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}
