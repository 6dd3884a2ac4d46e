//! The control plane: what users want, written down.
//!
//! A request becomes a row in SQL together with the wake-up of a worker, and nothing more: no replica is
//! started here, and no answer waits for one. Three layers, each thinner than the next: `http`
//! translates requests into calls and results into answers, `app` holds the use cases, the store holds the
//! truth. Gateways learn what to serve from the route watch.
//!
//! **Invariant:** stateless. Nothing is remembered between two requests that another control plane over the
//! same database would have to know, so any number of them serve side by side and any may die.

mod app;
mod config;
mod error;
mod fallback;
mod http;
mod metrics;
mod openapi;
mod router;
mod serve;
mod watch;

use std::sync::Arc;

use base::{Clock, Tasks};
use store::Store;
use tokio::net::TcpListener;

pub use config::Config;
pub use openapi::openapi;

/// Why the control plane ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The listener's own address is unknown: it is not a bound socket.
    #[error("the control plane's listener is not usable")]
    Listener(#[source] std::io::Error),
}

/// Serves the control plane on `listener` until `tasks` are told to end, then finishes what is in flight
/// (at most [`Config::drain_ms`]) and returns.
///
/// # Errors
/// [`ControlError`], before anything was served.
pub async fn run(
    config: Config,
    store: Store,
    listener: TcpListener,
    tasks: Tasks,
    clock: Clock,
) -> Result<(), ControlError> {
    let address = listener.local_addr().map_err(ControlError::Listener)?;
    let limits = serve::Limits::of(&config);
    let app = Arc::new(app::App::new(config, store, tasks.child(), clock));
    app.watch.start();
    let router = router::router(Arc::clone(&app));
    tracing::info!(%address, "the control plane listens");
    serve::serve(listener, router, limits, &app).await;
    tracing::info!(%address, "the control plane has ended");
    Ok(())
}
