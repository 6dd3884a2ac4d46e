//! The connections of one serving thread, by replica. A socket belongs to the thread whose event loop watches it.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
};

use super::{http1::Link, http2::Grpc};
use crate::table::replica::Replica;

/// Maximum number of idle connections to one replica.
const MAX_IDLE: usize = 256;

/// The connections of one thread.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<HashMap<u64, Entry, BuildHasherDefault<Spread>>>);

/// The connections to one replica.
#[derive(Debug)]
struct Entry {
    replica: Weak<Replica>,
    idle: Vec<Link>,
    /// Connections that calls share.
    grpc: Vec<Grpc>,
    /// Connections of ended streams, and the tick of their end.
    streams: Vec<(Grpc, u32)>,
}

impl Entry {
    fn of(replica: &Arc<Replica>) -> Self {
        Self { replica: Arc::downgrade(replica), idle: Vec::new(), grpc: Vec::new(), streams: Vec::new() }
    }
}

impl Pool {
    /// No other event loop uses it: the lock never blocks.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry, BuildHasherDefault<Spread>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection. [Known](Self::silent) from now on.
    pub(crate) fn take(&self, replica: &Arc<Replica>) -> Option<Link> {
        self.lock().entry(replica.key).or_insert_with(|| Entry::of(replica)).idle.pop()
    }

    /// Keeps a connection for the next request.
    pub(crate) fn keep(&self, replica: &Arc<Replica>, link: Link) {
        let mut entries = self.lock();
        let idle = &mut entries.entry(replica.key).or_insert_with(|| Entry::of(replica)).idle;
        if idle.len() < MAX_IDLE {
            idle.push(link);
        }
    }

    /// A connection that no stream uses any more. [Known](Self::silent) from now on.
    pub(crate) fn stream(&self, replica: &Arc<Replica>) -> Option<Grpc> {
        let mut entries = self.lock();
        let streams = &mut entries.entry(replica.key).or_insert_with(|| Entry::of(replica)).streams;
        streams.retain(|(grpc, _)| !grpc.is_closed());
        // The client of the last stream may still be sending.
        let free = streams.iter().rposition(|(grpc, _)| !grpc.is_used())?;
        Some(streams.swap_remove(free).0)
    }

    /// Keeps the connection of a stream that ended at `tick` for the next one.
    pub(crate) fn keep_stream(&self, replica: &Arc<Replica>, grpc: Grpc, tick: u32) {
        let mut entries = self.lock();
        let streams = &mut entries.entry(replica.key).or_insert_with(|| Entry::of(replica)).streams;
        if streams.len() < MAX_IDLE {
            streams.push((grpc, tick));
        }
    }

    /// A shared HTTP/2 connection with a free place.
    pub(crate) fn grpc(&self, replica: &Arc<Replica>) -> Option<Grpc> {
        let mut entries = self.lock();
        let entry = entries.entry(replica.key).or_insert_with(|| Entry::of(replica));
        entry.grpc.iter().find(|grpc| grpc.has_place()).cloned()
    }

    /// Adds an HTTP/2 connection to the shared ones.
    pub(crate) fn keep_grpc(&self, replica: &Arc<Replica>, grpc: Grpc) {
        let mut entries = self.lock();
        let shared = &mut entries.entry(replica.key).or_insert_with(|| Entry::of(replica)).grpc;
        shared.retain(|grpc| !grpc.is_closed());
        shared.push(grpc);
    }

    /// Removes a connection from the shared ones.
    pub(crate) fn forget_grpc(&self, replica: &Arc<Replica>, grpc: &Grpc) {
        if let Some(entry) = self.lock().get_mut(&replica.key) {
            entry.grpc.retain(|known| !known.is(grpc));
        }
    }

    /// Closes connections that were last used before `tick`, and those to removed replicas.
    pub(crate) fn close_idle(&self, tick: u32) {
        self.lock().retain(|_, entry| {
            let Some(replica) = entry.replica.upgrade() else { return false };
            entry.idle.retain(|link| link.used_at >= tick);
            if entry.idle.capacity() > 2 * entry.idle.len() {
                entry.idle.shrink_to(entry.idle.len());
            }
            // One is kept for the next call. Others were opened when there were more calls.
            let mut first = true;
            entry.grpc.retain(|grpc| !grpc.is_closed() && (std::mem::take(&mut first) || grpc.is_used()));
            entry.streams.retain(|(grpc, used_at)| *used_at >= tick && !grpc.is_closed());
            !entry.grpc.is_empty()
                || !entry.streams.is_empty()
                || !entry.idle.is_empty()
                || replica.outstanding.load(Ordering::Relaxed) > 0
        });
    }

    /// Replicas with outstanding requests that have sent nothing for `patience` ticks; the caller must probe them.
    pub(crate) fn silent(&self, tick: u32, patience: u32) -> Vec<Arc<Replica>> {
        let entries = self.lock();
        let known = entries.values().filter_map(|entry| entry.replica.upgrade());
        known.filter(|replica| replica.begin_probe(tick, patience)).collect()
    }
}

/// Spreads sequential keys.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
