//! The data plane: accepts requests for models and forwards them to replicas.
//!
//! It knows the control plane only through the route table that it watches ([`table`]), and no request waits for it:
//! the last table is used, even one that was read from disk after a restart. `serve/request.rs` follows the steps of a
//! request: identify, authorise, name the endpoint, admit, forward, observe.
//!
//! A folder may import only from the folders above it; `tests/layout.rs` checks that:
//!
//! | folder | content |
//! |---|---|
//! | [`wire`] | paths, headers, gRPC encoding, refusals, timers |
//! | [`table`] | endpoints, health of replicas, the watch, the copy on disk |
//! | [`upstream`] | connections to replicas, and bodies on them |
//! | [`observe`] | counters, prediction records, reports to the control plane, metrics and resource usage of replicas |
//! | [`admit`] | checks of the header, limits |
//! | [`choose`] | choice of the revision and the replica |
//! | [`forward`] | the loop of attempts, bodies in both directions |
//! | [`serve`] | connections, threads, requests, the gateway's own pages |
//!
//! Why it is fast: the event loop of one thread handles a whole request; the request that uses a connection to a
//! replica also drives it ([`upstream::http1`]); timeouts share one timer per connection ([`wire::alarm`]) or are found
//! by a periodic walk ([`serve::connection`]); counters are part of the route ([`table::stats`]); records are written
//! in batches ([`observe::records`]).
//!
//! **Invariant:** on the path of a request there is no lock that a slow client or replica holds, no database, no
//! control plane, and no unlimited buffer, queue or wait.

mod admit;
mod choose;
mod config;
mod forward;
mod observe;
mod serve;
mod table;
mod upstream;
mod wire;

use std::{io, sync::Arc};

use base::{Clock, Tasks};
pub use config::Config;
pub use serve::app::Reflect;
use tokio::{net::TcpListener, runtime::Handle, sync::mpsc};

use crate::{
    forward::gateway::Gateway,
    observe::{
        records::{FLUSH_EVERY, Writer},
        reports,
    },
    serve::{accept, app::App, thread::Thread},
    table::{saved, watch},
};

/// Why the gateway ended unexpectedly.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The machine provides no threads or event loops.
    #[error("the gateway cannot start its threads; the machine may be out of memory, threads or file descriptors")]
    Threads(#[source] io::Error),
    /// A serving thread panicked.
    #[error("a serving thread of the gateway panicked: {0}")]
    Defect(String),
}

/// Serves on `listener` until `tasks` are told to end. Then it accepts nothing more, finishes the requests in flight
/// within [`Config::drain_ms`], and writes the remaining records. `reflect` is the reflection service of the model
/// servers.
///
/// # Errors
/// [`GatewayError`], if it cannot serve.
pub async fn run(
    config: Config,
    listener: TcpListener,
    tasks: Tasks,
    clock: Clock,
    reflect: Reflect,
) -> Result<(), GatewayError> {
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let app = App::new(Gateway::new(config, tasks.clone(), clock), threads, Handle::current(), reflect);
    let table = &app.gateway.table;
    let table_file = app.gateway.config.table_file.clone();
    if let Some(path) = table_file.clone() {
        let loading = Arc::clone(table);
        let loaded = tasks.spawn_blocking(move || saved::load(&path, &loading)).await;
        app.moved.send_replace(loaded.map_err(|error| GatewayError::Defect(error.to_string()))?);
    }

    let follow = app.moved.subscribe();
    tasks.spawn(watch::run(Arc::clone(&app.watch), app.moved.clone()));
    let keeping = table_file.map(|path| tasks.spawn(saved::keep(Arc::clone(table), path, follow, tasks.clone())));
    let (all_done, done) = tokio::sync::oneshot::channel::<()>();
    let recording = tasks.spawn(record(Arc::clone(&app), done));
    let (losses_noted, noted) = tokio::sync::oneshot::channel::<()>();
    let telling = tasks.spawn({
        let gateway = Arc::clone(&app.gateway);
        async move { reports::tell(&gateway.lost, &gateway.config.control_url, noted).await }
    });
    let (ejections_noted, noted) = tokio::sync::oneshot::channel::<()>();
    let telling_ejections = tasks.spawn({
        let gateway = Arc::clone(&app.gateway);
        async move { reports::tell(&gateway.ejected, &gateway.config.control_url, noted).await }
    });

    let mut lanes = Vec::with_capacity(threads);
    let mut running = Vec::with_capacity(threads);
    for lane in &app.lanes {
        let (sender, accepted) = mpsc::channel(accept::HANDOVER);
        let thread = Thread::new(Arc::clone(&app), Arc::clone(lane));
        let runs = Arc::clone(&thread);
        running.push(tasks.spawn_blocking(move || runs.run(accepted)));
        lanes.push((thread, sender));
    }
    accept::accept(&app, listener, lanes).await;

    let mut ended = Ok(());
    for thread in running {
        match thread.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => ended = Err(GatewayError::Threads(error)),
            Err(error) => ended = Err(GatewayError::Defect(error.to_string())),
        }
    }
    drop((all_done, losses_noted, ejections_noted));
    for task in [keeping, Some(recording), Some(telling), Some(telling_ejections)].into_iter().flatten() {
        task.await.map_err(|error| GatewayError::Defect(error.to_string()))?;
    }
    ended
}

/// Writes records periodically, and the remaining ones after all requests are done.
async fn record(app: Arc<App>, mut done: tokio::sync::oneshot::Receiver<()>) {
    let gateway = &app.gateway;
    let Some(folder) = gateway.config.predictions_dir.clone() else { return };
    let lists: Vec<_> = app.lanes.iter().map(|lane| Arc::clone(&lane.records)).collect();
    let mut writer = Writer::new(folder, &gateway.config, Arc::clone(&gateway.records_lost));
    let mut last = false;
    while !last {
        tokio::select! {
            () = tokio::time::sleep(FLUSH_EVERY) => {}
            _ = &mut done => last = true,
        }
        if lists.iter().all(|list| list.is_empty()) {
            continue;
        }
        let (lists, now) = (lists.clone(), gateway.now());
        let flushing = gateway.tasks.spawn_blocking(move || {
            writer.flush(&lists, now);
            writer
        });
        writer = match flushing.await {
            Ok(writer) => writer,
            Err(error) => {
                tracing::error!("predictions are no longer recorded: {error}");
                return;
            }
        };
    }
}
