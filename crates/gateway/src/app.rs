//! What all parts of a gateway share.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize},
    },
    time::SystemTime,
};

use api::Timestamp;
use base::{Clock, Tasks};
use tokio::time::Instant;

use crate::{Config, metrics::Counters, record::Records, shard::Shard, table::Table, usage::Usages};

/// What all parts of a gateway share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) table: Table,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Clock,
    /// Begins the ids of requests: another one in each process.
    pub(crate) id_prefix: [u8; 16],
    pub(crate) ids: AtomicU64,
    /// Requests being answered.
    pub(crate) in_flight: AtomicUsize,
    /// Connections of clients.
    pub(crate) open: AtomicUsize,
    /// Bytes of bodies held in memory.
    pub(crate) held_bytes: AtomicUsize,
    pub(crate) counters: Counters,
    pub(crate) watch: WatchState,
    pub(crate) usages: Usages,
    pub(crate) shards: OnceLock<Vec<Arc<Shard>>>,
    /// Records that the disk did not take.
    pub(crate) records_lost: Arc<AtomicU64>,
    started: Instant,
}

/// How the watch of the control plane stands.
#[derive(Debug, Default)]
pub(crate) struct WatchState {
    pub(crate) connected: AtomicBool,
    /// When the control plane last said that the table is complete; microseconds since 1970, 0 for never.
    pub(crate) synced_at: AtomicI64,
}

impl App {
    pub(crate) fn new(config: Config, threads: usize, tasks: Tasks, clock: Clock) -> Arc<Self> {
        let mut id_prefix = [0; 16];
        write_hex(rand::random(), &mut id_prefix);
        Arc::new(Self {
            config,
            table: Table::new(threads),
            tasks,
            clock,
            id_prefix,
            ids: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            counters: Counters::default(),
            watch: WatchState::default(),
            usages: Usages::default(),
            shards: OnceLock::new(),
            records_lost: Arc::default(),
            started: Instant::now(),
        })
    }

    /// Milliseconds since the gateway started, from 1.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The time of day.
    pub(crate) fn now(&self) -> Timestamp {
        let now: SystemTime = self.clock.now();
        now.into()
    }

    /// The serving threads.
    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    /// The lists of records of all threads.
    pub(crate) fn record_lists(&self) -> Vec<Arc<Records>> {
        self.shards().iter().map(|shard| Arc::clone(&shard.records)).collect()
    }
}

/// Writes a number as 16 hexadecimal digits.
pub(crate) fn write_hex(mut number: u64, digits: &mut [u8; 16]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::try_from(number & 15).unwrap_or(0)];
        number >>= 4;
    }
}
