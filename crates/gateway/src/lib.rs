//! The data plane: takes requests for models and has a replica answer them.
//!
//! It knows the control plane only by the route table that it watches ([`watch`]), and no request waits for
//! that: the last table serves, also one read from disk after a restart. A request's way: [`serve`] (a
//! connection), [`service`] (who answers), [`balance`] (which replica), [`proxy`] or [`grpc`] (there and back),
//! [`flight`] (what is counted at the end).
//!
//! What makes it cheap: one thread's event loop does all of a request, connections to replicas are driven by the
//! request that uses them ([`upstream`]), timeouts share one timer a connection ([`alarm`]) or are found by a walk
//! ([`conn`]), counters hang on the route ([`stats`]), records leave in batches ([`mod@record`]).
//!
//! **Invariant:** on a request's way there is no lock that a slow party holds, no database, no control plane, and no
//! buffer, queue or wait without a bound.

mod alarm;
mod answer;
mod app;
mod balance;
mod body;
mod config;
mod conn;
mod flight;
mod grpc;
mod metrics;
mod path;
mod proxy;
mod record;
mod replica;
mod saved;
mod serve;
mod service;
mod shard;
mod stats;
mod table;
mod upstream;
mod usage;
mod watch;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use base::{Clock, Tasks};
pub use config::Config;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    app::App,
    record::Writer,
    saved::Position,
    shard::{Accepted, OpenPlace, Shard},
};

/// Connections that may wait for one thread to take them.
const HANDOVER: usize = 1_024;
/// How long to wait after the machine refused to hand over a connection, as when it has no file descriptors left.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(50);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 105\r\n\r\n\
{\"error\":\"too many connections are open (gateway.max_connections); close some, or try again in a moment\"}";

/// Why a gateway ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The machine gives no threads or event loops.
    #[error("the gateway cannot start its threads; the machine may be out of memory, threads or file descriptors")]
    Threads(#[source] io::Error),
    /// A serving thread panicked.
    #[error("a serving thread of the gateway ended by a defect: {0}")]
    Defect(String),
}

/// Serves on `listener` until `tasks` are told to end; then accepts nothing more, finishes what is in flight within
/// [`Config::drain_ms`], and writes what is left of the records.
///
/// # Errors
/// [`GatewayError`], where it cannot serve at all.
pub async fn run(config: Config, listener: TcpListener, tasks: Tasks, clock: Clock) -> Result<(), GatewayError> {
    let threads = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let app = App::new(config, threads, tasks.clone(), clock);
    let mut position = Position::default();
    if let Some(path) = app.config.table_file.clone() {
        let loading = Arc::clone(&app);
        let loaded = tasks.spawn_blocking(move || saved::load(&path, &loading.table)).await;
        position = loaded.map_err(|error| GatewayError::Defect(error.to_string()))?;
    }
    let shards: Vec<_> = (0..threads).map(|index| Shard::new(index, Arc::clone(&app))).collect();
    // Nobody else sets it.
    let _first = app.shards.set(shards.clone());

    let (moved, follow) = tokio::sync::watch::channel(position);
    tasks.spawn(watch::run(Arc::clone(&app), moved));
    let keeping = app.config.table_file.clone().map(|path| tasks.spawn(saved::keep(Arc::clone(&app), path, follow)));
    let (all_done, done) = tokio::sync::oneshot::channel::<()>();
    let recording = tasks.spawn(record(Arc::clone(&app), done));

    let mut lanes = Vec::with_capacity(threads);
    let mut running = Vec::with_capacity(threads);
    for shard in shards {
        let (lane, accepted) = mpsc::channel(HANDOVER);
        let thread = Arc::clone(&shard);
        running.push(tasks.spawn_blocking(move || thread.run(accepted)));
        lanes.push((shard, lane));
    }
    accept(&app, listener, lanes).await;

    let mut ended = Ok(());
    for thread in running {
        match thread.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => ended = Err(GatewayError::Threads(error)),
            Err(error) => ended = Err(GatewayError::Defect(error.to_string())),
        }
    }
    drop(all_done);
    for task in [keeping, Some(recording)].into_iter().flatten() {
        task.await.map_err(|error| GatewayError::Defect(error.to_string()))?;
    }
    ended
}

/// Accepts connections and hands each to the thread that has the fewest, until told to end.
async fn accept(app: &Arc<App>, listener: TcpListener, lanes: Vec<(Arc<Shard>, mpsc::Sender<Accepted>)>) {
    let mut failing = false;
    let mut any_ended = futures::future::select_all(lanes.iter().map(|(_, lane)| Box::pin(lane.closed())));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.tasks.stopping() => return,
            // A thread that ended takes the gateway with it: half of one would be worse than none.
            _ = &mut any_ended => return,
        };
        match accepted.and_then(|(stream, from)| prepare(stream).map(|stream| (stream, from))) {
            Ok((stream, from)) => {
                failing = false;
                hand_over(app, stream, from, &lanes).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("a connection could not be accepted: {error}; the next ones are tried");
                }
                tokio::time::sleep(REST_AFTER_FAILURE).await;
            }
        }
    }
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn hand_over(app: &App, mut stream: TcpStream, from: SocketAddr, lanes: &[(Arc<Shard>, mpsc::Sender<Accepted>)]) {
    let Some((shard, lane)) = lanes.iter().min_by_key(|(shard, _)| shard.open()) else { return };
    let Some(place) = OpenPlace::take(shard) else {
        app.counters.connections_refused.inc();
        // Its send buffer is empty, so this does not wait; a client that is gone already need not be told.
        let _told = tokio::time::timeout(REST_AFTER_FAILURE, stream.write_all(FULL)).await;
        return;
    };
    match stream.into_std() {
        Ok(stream) => {
            // It fails only when the thread ended, which the acceptor notices by itself.
            let _sent = lane.send(Accepted { stream, place }).await;
        }
        Err(error) => tracing::warn!("the connection of {from} could not be handed over: {error}"),
    }
}

/// Writes records now and then, and what is left of them when all requests are done.
async fn record(app: Arc<App>, mut done: tokio::sync::oneshot::Receiver<()>) {
    let Some(folder) = app.config.predictions_dir.clone() else { return };
    let lists = app.record_lists();
    let mut writer = Writer::new(folder, &app.config, Arc::clone(&app.records_lost));
    let mut last = false;
    while !last {
        tokio::select! {
            () = tokio::time::sleep(record::FLUSH_EVERY) => {}
            _ = &mut done => last = true,
        }
        if lists.iter().all(|list| list.is_empty()) {
            continue;
        }
        let (lists, now) = (lists.clone(), app.now());
        let flushing = app.tasks.spawn_blocking(move || {
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_refusal_at_the_bound_is_well_formed() {
        let text = std::str::from_utf8(super::FULL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }
}
