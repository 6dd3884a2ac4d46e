//! The serving threads: each has an event loop and its own connections to clients and replicas, and shares only
//! counters and the route table with the others.
//!
//! A request is handled completely on the thread of its client connection, so no step of it wakes another thread. One
//! acceptor passes each connection to the thread with the fewest connections.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base::Tasks;
use tokio::{net::TcpStream, sync::mpsc, time::Instant};

use super::{
    app::App,
    connection::{Conn, TickLimits},
    protocol,
};
use crate::forward::lane::{Lane, TICK};

/// The number of ticks between two checks of all connections.
const WALK: u32 = 4;
/// How long a gateway that ends waits for requests on connections that are open.
const LAST_REQUESTS: Duration = Duration::from_millis(250);

/// One serving thread.
#[derive(Debug)]
pub(crate) struct Thread {
    app: Arc<App>,
    lane: Arc<Lane>,
    walked: AtomicU32,
    connections: Mutex<Vec<Weak<Conn>>>,
    open: AtomicUsize,
}

impl Thread {
    pub(crate) fn new(app: Arc<App>, lane: Arc<Lane>) -> Arc<Self> {
        let (walked, connections, open) = Default::default();
        Arc::new(Self { app, lane, walked, connections, open })
    }

    /// Its number of connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Runs the thread until `accepted` ends and then its connections, for at most the drain time.
    pub(crate) fn run(self: &Arc<Self>, mut accepted: mpsc::Receiver<Accepted>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = self.app.gateway.tasks.clone();
        let drain = ticks_of(self.app.gateway.config.drain_ms);
        runtime.block_on(async {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while let Some(accepted) = tokio::select! {
                next = accepted.recv() => next.map(Some),
                _ = ticks.tick() => Some(None),
            } {
                match accepted {
                    Some(accepted) => self.welcome(accepted, &tasks),
                    None => self.count_tick(),
                }
            }
            let mut often = tokio::time::interval(Duration::from_millis(10));
            let (since, began) = (self.lane.tick(), Instant::now());
            while self.open() > 0 && self.lane.tick().saturating_sub(since) <= drain {
                tokio::select! {
                    _ = often.tick() => {
                        let last = began.elapsed() > LAST_REQUESTS.min(Duration::from_millis(self.app.gateway.config.drain_ms) / 2);
                        self.all_connections(|conn| conn.drain(last));
                    }
                    _ = ticks.tick() => self.count_tick(),
                }
            }
            if self.open() > 0 {
                self.lane.cut();
                tracing::warn!(
                    "{} connections were in use for longer than the drain time and are cut off",
                    self.open()
                );
            }
        });
        runtime.shutdown_timeout(TICK);
        Ok(())
    }

    fn welcome(self: &Arc<Self>, accepted: Accepted, tasks: &Tasks) {
        let conn = Conn::new(Arc::clone(&self.app), Arc::clone(&self.lane));
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&conn));
        tasks.spawn(async move {
            let _place = accepted.place;
            match TcpStream::from_std(accepted.stream) {
                Ok(stream) => protocol::serve(stream, conn).await,
                Err(error) => tracing::warn!("cannot take over a connection: {error}"),
            }
        });
    }

    fn all_connections(&self, mut visit: impl FnMut(&Conn)) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|conn| match conn.upgrade() {
            Some(conn) => {
                visit(&conn);
                true
            }
            None => false,
        });
    }

    fn count_tick(&self) {
        let now = self.lane.count_tick();
        if now.saturating_sub(self.walked.load(Ordering::Relaxed)) < WALK {
            return;
        }
        self.walked.store(now, Ordering::Relaxed);
        let config = &self.app.gateway.config;
        let limits = TickLimits {
            header: ticks_of(config.header_timeout_ms),
            idle: ticks_of(config.idle_timeout_ms),
            write: ticks_of(config.write_timeout_ms),
        };
        self.all_connections(|conn| conn.supervise(now, &limits));
        self.lane.look_after_replicas();
    }
}

fn ticks_of(ms: u64) -> u32 {
    u32::try_from(ms / 250).unwrap_or(u32::MAX).max(1)
}

/// A connection that is passed to a thread.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its socket, in non-blocking mode.
    pub(crate) stream: std::net::TcpStream,
    /// Its place among all connections.
    pub(crate) place: OpenPlace,
}

/// A place among the connections of a thread and of the gateway.
#[derive(Debug)]
pub(crate) struct OpenPlace(Arc<Thread>);

impl OpenPlace {
    /// Takes a place, unless `gateway.max_connections` are open.
    pub(crate) fn take(thread: &Arc<Thread>) -> Option<Self> {
        let open = thread.app.open.fetch_add(1, Ordering::AcqRel);
        thread.open.fetch_add(1, Ordering::AcqRel);
        let place = Self(Arc::clone(thread));
        (open < thread.app.gateway.config.max_connections).then_some(place)
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.app.open.fetch_sub(1, Ordering::AcqRel);
    }
}
