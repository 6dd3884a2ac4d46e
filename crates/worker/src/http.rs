//! The worker's own HTTP server: the logs of its replicas, health and metrics.
//!
//! **Invariant:** it is read-only.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
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
use backend::{Backend, BackendError, Replica};
use base::{
    Tasks,
    serve::{Answer, Limits, Peer},
};
use futures::StreamExt;
use hyper::{body::Incoming, service::Service as _};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use store::Store;
use tokio::net::TcpListener;

use crate::logs;

/// Default number of log lines.
const TAIL: usize = 100;
/// Limits of connections.
const LIMITS: Limits = Limits {
    connections: 1_024,
    calls: base::serve::MOST_CALLS,
    head: Duration::from_secs(10),
    idle: Duration::from_secs(60),
    // A paused `logs -f` reads nothing for a long time.
    stall: Duration::from_secs(300),
    full: FULL,
    slow: SLOW,
    words: |status, detail| Problem::unreadable(status.as_u16(), status.canonical_reason().unwrap_or_default(), detail),
};
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 122\r\n\r\n\
{\"status\":503,\"title\":\"Service Unavailable\",\"code\":\"busy\",\"detail\":\"too many connections are open: try again in a moment\"}";
const SLOW: &str = "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
content-length: 132\r\n\r\n\
{\"status\":408,\"title\":\"Request Timeout\",\"code\":\"slow_header\",\"detail\":\"the request's headers took too long: send them in one piece\"}";
/// Maximum number of log lines.
const MAX_TAIL: usize = 10_000;

/// The state of the handlers.
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

/// Serves until told to stop.
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
    let pages = Arc::new(Pages(TowerToHyperService::new(router)));
    base::serve::accept_until_stopped(listener, LIMITS, &pages, &tasks).await;
}

/// Answers with the router.
struct Pages(TowerToHyperService<Router>);

impl Answer for Pages {
    type Body = Body;

    async fn answer(self: Arc<Self>, _: Peer, request: axum::http::Request<Incoming>) -> Result<Response, Infallible> {
        self.0.call(request).await
    }

    fn refuse(&self, _: &axum::http::Request<Incoming>, status: StatusCode, words: &str) -> Response {
        let (kind, body) = (LIMITS.words)(status, words);
        (status, [(CONTENT_TYPE, kind)], body).into_response()
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
    let lineage = match front.store.lineage().await {
        Ok(lineage) => lineage,
        Err(error) => return refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error),
    };
    // Replicas of another database with the same deployment number belong to another deployment.
    let ours = move |replica: &Replica| {
        let epoch = replica.origin.as_ref().map(|origin| &origin.epoch);
        epoch.is_none_or(|epoch| *epoch == lineage.current || lineage.former.contains(epoch))
    };
    match logs::of_deployment(Arc::clone(&front.backend), id, query.tail(), query.follow, ours).await {
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

/// A log as a response body that ends when the worker stops.
fn text(log: logs::Log, front: &Front) -> Response {
    let tasks = front.tasks.clone();
    let log = log.take_until(async move { tasks.stopping().await });
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(log)).into_response()
}

fn unavailable(error: &BackendError) -> Response {
    tracing::warn!(error = error as &dyn std::error::Error, "cannot read a log");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_connections_is_well_formed() {
        for (text, status) in [(FULL, 503), (SLOW, 408)] {
            let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
            assert_eq!(serde_json::from_str::<Problem>(body).expect("a problem").status, status);
        }
    }
}
