//! The threads that serve: each has an event loop, its own connections to clients and to replicas, and shares
//! with the others only counters and the route table.
//!
//! A request is answered wholly on the thread that its client's connection was given to, so no step of it
//! wakes another thread. One acceptor hands out connections, each to the thread that has the fewest.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base::Tasks;
use tokio::{net::TcpStream, sync::mpsc};

use crate::{
    app::App,
    conn::{Conn, End, TickLimits},
    record::Records,
    replica::Replica,
    serve,
    stats::{ADDED_US, Histogram},
};

/// The clock of timeouts of connections.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two walks over the connections.
const WALK: u32 = 4;
/// Connections to replicas are closed after so many ticks without a request.
const IDLE_LINK: u32 = 120;

/// One serving thread.
#[derive(Debug)]
pub(crate) struct Shard {
    /// Which one.
    pub(crate) index: usize,
    /// What all of them share.
    pub(crate) app: Arc<App>,
    /// Records that wait to be written.
    pub(crate) records: Arc<Records>,
    /// The gateway's own share of each request's time.
    pub(crate) added: Histogram,
    tick: AtomicU32,
    connections: Mutex<Vec<Weak<Conn>>>,
    open: AtomicUsize,
    /// Replicas that have idle connections on this thread.
    pools: Mutex<Vec<Weak<Replica>>>,
}

impl Shard {
    pub(crate) fn new(index: usize, app: Arc<App>) -> Arc<Self> {
        Arc::new(Self {
            index,
            records: Arc::new(Records::new(&app.config)),
            app,
            added: Histogram::new(&ADDED_US),
            tick: AtomicU32::new(1),
            connections: Mutex::default(),
            open: AtomicUsize::new(0),
            pools: Mutex::default(),
        })
    }

    /// Quarters of a second since the start, from 1.
    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// Connections that it has.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Notes that a replica has idle connections here now and had none before.
    pub(crate) fn has_idle(&self, replica: &Arc<Replica>) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(replica));
    }

    /// Runs the thread until `accepted` ends and then its connections, which get at most the drain time.
    pub(crate) fn run(self: &Arc<Self>, mut accepted: mpsc::Receiver<Accepted>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = self.app.tasks.clone();
        let drain = ticks_of(self.app.config.drain_ms);
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
            let since = self.tick();
            while self.open() > 0 && self.tick().saturating_sub(since) <= drain {
                tokio::select! {
                    _ = often.tick() => self.all_connections(|conn| conn.end(End::Gracefully)),
                    _ = ticks.tick() => self.count_tick(),
                }
            }
            if self.open() > 0 {
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
        let conn = Conn::new(Arc::clone(self));
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&conn));
        tasks.spawn(async move {
            let _place = accepted.place;
            match TcpStream::from_std(accepted.stream) {
                Ok(stream) => serve::serve(stream, conn).await,
                Err(error) => tracing::warn!("a connection could not be taken over: {error}"),
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
        let now = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        if !now.is_multiple_of(WALK) {
            return;
        }
        let config = &self.app.config;
        let limits = TickLimits {
            header: ticks_of(config.header_timeout_ms),
            idle: ticks_of(config.idle_timeout_ms),
            write: ticks_of(config.write_timeout_ms),
        };
        self.all_connections(|conn| conn.supervise(now, &limits));
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|replica| {
            replica.upgrade().is_some_and(|replica| replica.close_idle(self.index, now.saturating_sub(IDLE_LINK)))
        });
    }
}

fn ticks_of(ms: u64) -> u32 {
    u32::try_from(ms / 250).unwrap_or(u32::MAX).max(1)
}

/// A connection on its way to a thread.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its socket, not blocking.
    pub(crate) stream: std::net::TcpStream,
    /// Its place among all connections.
    pub(crate) place: OpenPlace,
}

/// A place among the connections of a thread and of the gateway.
#[derive(Debug)]
pub(crate) struct OpenPlace(Arc<Shard>);

impl OpenPlace {
    /// Takes a place, unless `gateway.max_connections` are open.
    pub(crate) fn take(shard: &Arc<Shard>) -> Option<Self> {
        let open = shard.app.open.fetch_add(1, Ordering::AcqRel);
        shard.open.fetch_add(1, Ordering::AcqRel);
        let place = Self(Arc::clone(shard));
        (open < shard.app.config.max_connections).then_some(place)
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.app.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Starts hyper's own tasks among ours, on the thread that asks.
#[derive(Clone, Debug)]
pub(crate) struct Executor(pub(crate) Tasks);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
