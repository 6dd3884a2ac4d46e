//! The control plane: stores what users want.
//!
//! A request becomes a row in SQL together with the wake-up of a worker, and nothing more: no replica is started here,
//! and no response waits for one. There are three layers: `http` translates requests into calls and results into
//! responses, `app` contains the use cases, and the store holds the state. Gateways get their routes from the route
//! watch.
//!
//! **Invariant:** stateless. The process keeps nothing between two requests that another control plane on the same
//! database would need. So any number of them can run side by side, and any of them may crash.

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
use wake::{Announcer, WakeUps};

pub use config::Config;
pub use openapi::openapi;

/// Why the control plane ended unexpectedly.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address of the listener is unknown: it is not a bound socket.
    #[error("the control plane's listener is not usable")]
    Listener(#[source] std::io::Error),
}

/// Serves the control plane on `listener` until `tasks` are told to end. Then finishes the requests in flight (at most
/// [`Config::drain_ms`]) and returns. `wake_ups` takes hints of the tasks that requests queue.
///
/// # Errors
/// [`ControlError`], before any request was served.
pub async fn run(
    config: Config,
    store: Store,
    wake_ups: Arc<dyn WakeUps>,
    listener: TcpListener,
    tasks: Tasks,
    clock: Clock,
) -> Result<(), ControlError> {
    let address = listener.local_addr().map_err(ControlError::Listener)?;
    let limits = serve::Limits::of(&config);
    let announcer = Announcer::start(wake_ups, &tasks.child());
    let app = Arc::new(app::App::new(config, store, announcer, tasks.child(), clock));
    app.watch.start();
    let router = router::router(Arc::clone(&app));
    tracing::info!(%address, "the control plane listens");
    serve::serve(listener, router, limits, &app).await;
    tracing::info!(%address, "the control plane has ended");
    Ok(())
}
