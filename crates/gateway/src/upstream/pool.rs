//! The connections of one serving thread, by replica. A socket belongs to the thread whose event loop watches it.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
};

use super::{http1::Link, http2::Grpc};
use crate::table::replica::Replica;

/// Connections kept to one replica for the next requests.
const MAX_IDLE: usize = 256;

/// The connections of one thread.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<HashMap<u64, Entry, BuildHasherDefault<Spread>>>);

/// The connections to one replica.
#[derive(Debug)]
struct Entry {
    replica: Weak<Replica>,
    idle: Vec<Link>,
    /// Those that calls share.
    grpc: Vec<Grpc>,
}

impl Entry {
    fn of(replica: &Arc<Replica>) -> Self {
        Self { replica: Arc::downgrade(replica), idle: Vec::new(), grpc: Vec::new() }
    }
}

impl Pool {
    /// Nobody else's event loop touches it: the lock is never waited for.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry, BuildHasherDefault<Spread>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that waits. [Known](Self::know) from now on.
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

    /// From now on the replica is among [`Self::silent`]'s.
    pub(crate) fn know(&self, replica: &Arc<Replica>) {
        self.lock().entry(replica.key).or_insert_with(|| Entry::of(replica));
    }

    /// A shared HTTP/2 connection that has a place for one more call.
    pub(crate) fn grpc(&self, replica: &Arc<Replica>) -> Option<Grpc> {
        let mut entries = self.lock();
        let entry = entries.entry(replica.key).or_insert_with(|| Entry::of(replica));
        entry.grpc.iter().find(|grpc| grpc.has_place()).cloned()
    }

    /// Shares an HTTP/2 connection from now on.
    pub(crate) fn keep_grpc(&self, replica: &Arc<Replica>, grpc: Grpc) {
        let mut entries = self.lock();
        let shared = &mut entries.entry(replica.key).or_insert_with(|| Entry::of(replica)).grpc;
        shared.retain(|grpc| !grpc.is_closed());
        shared.push(grpc);
    }

    /// Shares a connection no longer.
    pub(crate) fn forget_grpc(&self, replica: &Arc<Replica>, grpc: &Grpc) {
        if let Some(entry) = self.lock().get_mut(&replica.key) {
            entry.grpc.retain(|known| !known.is(grpc));
        }
    }

    /// Closes connections that were last used before `tick`, and those to replicas that are gone.
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
            !entry.grpc.is_empty() || !entry.idle.is_empty() || replica.outstanding.load(Ordering::Relaxed) > 0
        });
    }

    /// Replicas that owe answers and have said nothing for `patience` ticks; the caller is to probe them.
    pub(crate) fn silent(&self, tick: u32, patience: u32) -> Vec<Arc<Replica>> {
        let entries = self.lock();
        let known = entries.values().filter_map(|entry| entry.replica.upgrade());
        known.filter(|replica| replica.begin_probe(tick, patience)).collect()
    }
}

/// Spreads keys that count up.
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
