//! The listener of the control plane: its limits and its graceful shutdown.

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::Problem;
use axum::{
    Router,
    http::{Request, Response, StatusCode, header::CONTENT_TYPE},
    response::IntoResponse as _,
};
use base::serve::{Answer, Change, Peer};
use hyper::{body::Incoming, service::Service as _};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::{Config, app::App};

/// The HTTP/1.1 response to a connection above the limit.
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 163\r\n\r\n\
{\"status\":503,\"title\":\"Service Unavailable\",\"code\":\"busy\",\"detail\":\"too many connections are open (control.max_connections); close some, or try again in a moment\"}";

/// The HTTP/1.1 response to a client whose header took too long.
const SLOW: &str = "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
content-length: 160\r\n\r\n\
{\"status\":408,\"title\":\"Request Timeout\",\"code\":\"slow_header\",\"detail\":\"the request's headers took too long (control.header_timeout_ms); send them in one piece\"}";

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(60);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    connections: base::serve::Limits,
    drain: Duration,
}

impl Limits {
    pub(crate) fn of(config: &Config) -> Self {
        let connections = base::serve::Limits {
            connections: config.max_connections,
            calls: base::serve::MOST_CALLS,
            head: Duration::from_millis(config.header_timeout_ms),
            idle: IDLE,
            stall: Duration::from_millis(config.stall_timeout_ms.into()),
            full: FULL,
            slow: SLOW,
            words: unreadable,
        };
        Self { connections, drain: Duration::from_millis(config.drain_ms) }
    }
}

/// The response to a request that is not valid HTTP, or whose header is too large.
fn unreadable(status: StatusCode, detail: &str) -> (&'static str, String) {
    Problem::unreadable(status.as_u16(), status.canonical_reason().unwrap_or_default(), detail)
}

/// Answers with the router, and counts connections.
struct Front {
    router: TowerToHyperService<Router>,
    app: Arc<App>,
}

impl Answer for Front {
    type Body = axum::body::Body;

    async fn answer(self: Arc<Self>, _: Peer, request: Request<Incoming>) -> Result<Response<Self::Body>, Infallible> {
        self.router.call(request).await
    }

    fn refuse(&self, _: &Request<Incoming>, status: StatusCode, words: &str) -> Response<Self::Body> {
        let (kind, body) = unreadable(status, words);
        (status, [(CONTENT_TYPE, kind)], body).into_response()
    }

    fn changed(&self, change: Change) {
        let metrics = &self.app.metrics;
        match change {
            Change::Opened => drop(metrics.connections.inc()),
            Change::Closed => drop(metrics.connections.dec()),
            Change::Refused => drop(metrics.connections_refused.inc()),
        }
    }
}

/// Serves until the app's tasks are told to end. Then it accepts nothing more, finishes the requests in flight and cuts
/// off those that exceed the drain time.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, app: &Arc<App>) {
    let front = Arc::new(Front { router: TowerToHyperService::new(router), app: Arc::clone(app) });
    let cut = base::serve::accept_until_stopped(listener, limits.connections, &front, &app.tasks).await;
    if !app.tasks.stop_and_wait(limits.drain).await {
        tracing::warn!("requests were still in flight after {} ms and are cut off", limits.drain.as_millis());
        cut.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_connections_is_well_formed() {
        for (text, status) in [(FULL, 503), (SLOW, 408)] {
            let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
            let problem: Problem = serde_json::from_str(body).expect("a problem");
            assert_eq!(problem.status, status);
        }
    }
}
