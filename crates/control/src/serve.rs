//! Accepts connections, bounds them, and lets go of them in good order.

use std::{sync::Arc, time::Duration};

use axum::Router;
use base::Tasks;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{Config, app::App};

/// What is told, in HTTP/1.1, to a connection beyond the bound.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 163\r\n\r\n\
{\"status\":503,\"title\":\"Service Unavailable\",\"code\":\"busy\",\"detail\":\"too many connections are open (control.max_connections); close some, or try again in a moment\"}";

/// How long to wait after the machine refused to hand over a connection, as when it has no file descriptors left.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// HTTP/2 connections without a sign of life are closed after this.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Bounds of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    connections: usize,
    header_timeout: Duration,
    stall_timeout_ms: u32,
    drain: Duration,
}

impl Limits {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            connections: config.max_connections.min(Semaphore::MAX_PERMITS),
            header_timeout: Duration::from_millis(config.header_timeout_ms),
            stall_timeout_ms: config.stall_timeout_ms,
            drain: Duration::from_millis(config.drain_ms),
        }
    }
}

/// Serves until the app's tasks are told to end; then accepts nothing more, finishes what is in flight and
/// cuts off what takes longer than the drain time.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, app: &Arc<App>) {
    let tasks = app.tasks.clone();
    let cut = CancellationToken::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tasks.stopping() => break,
        };
        let mut stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(REST_AFTER_FAILURE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            app.metrics.connections_refused.inc();
            // Its send buffer is empty, so this does not wait; a client that is gone already need not be told.
            let _told = tokio::time::timeout(REST_AFTER_FAILURE, stream.write_all(FULL)).await;
            continue;
        };
        let (app, router, cut) = (Arc::clone(app), router.clone(), cut.clone());
        tasks.spawn(async move {
            app.metrics.connections.inc();
            tokio::select! {
                () = connection(stream, router, limits, &app.tasks) => {}
                () = cut.cancelled() => {}
            }
            app.metrics.connections.dec();
            drop(place);
        });
    }
    drop(listener);
    if !tasks.stop_and_wait(limits.drain).await {
        tracing::warn!("requests were still in flight after {} ms and are cut off", limits.drain.as_millis());
        cut.cancel();
    }
}

async fn connection(stream: TcpStream, router: Router, limits: Limits, tasks: &Tasks) {
    // The header timeout of hyper begins with the first byte; a client that sends none must not stay either.
    let spoke = async { stream.peek(&mut [0]).await };
    tokio::select! {
        spoke = tokio::time::timeout(limits.header_timeout, spoke) => if !matches!(spoke, Ok(Ok(1..))) { return },
        () = tasks.stopping() => return,
    }
    if let Err(error) = tune(&stream, limits) {
        tracing::debug!("a connection could not be tuned: {error}");
    }
    let mut builder = Builder::new(Executor(tasks.clone()));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tasks.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client went away, or spoke no HTTP: its own business.
        tracing::debug!("a connection ended: {error}");
    }
}

/// Sends small writes at once, and lets the kernel close a connection whose client takes nothing: it counts the
/// time for which what was sent is not acknowledged and for which the client's window is closed.
fn tune(stream: &TcpStream, limits: Limits) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, limits.stall_timeout_ms)?)
}

/// Starts hyper's own tasks among ours, so that shutdown waits for them.
#[derive(Clone)]
struct Executor(Tasks);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_at_the_bound_is_well_formed() {
        let text = std::str::from_utf8(FULL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        let problem: api::Problem = serde_json::from_str(body).expect("a problem");
        assert_eq!(problem.status, 503);
    }
}
