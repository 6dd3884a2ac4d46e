//! One replica as the gateway sees it: its connections, what it has outstanding, and whether it is avoided.
//!
//! A replica that fails is *ejected*: for a time that doubles with each failure it gets nothing while
//! others can serve. Without this a replica that fails fast would look idle and draw all the load. The last
//! replica is never ejected in effect: [`choose`](crate::balance::choose) falls back to ejected ones.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use api::{replica::Address, route::RouteReplica};
use http::HeaderValue;

use crate::upstream::{Grpc, Link};

/// Stands for what no header can hold.
pub(crate) const UNWRITABLE: HeaderValue = HeaderValue::from_static("?");

/// Answers 5xx in a row after which a replica is avoided. A connection that fails does it at once.
const BAD_ANSWERS: u32 = 5;
const FIRST_EJECTION_MS: u64 = 500;
const LONGEST_EJECTION_MS: u64 = 30_000;
/// Connections kept for the next request, on each thread.
const MAX_IDLE: usize = 256;

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Its name.
    pub(crate) id: String,
    /// Its name as a header.
    pub(crate) label: HeaderValue,
    /// Where it listens.
    pub(crate) address: Address,
    /// Requests that it has not answered wholly.
    pub(crate) outstanding: AtomicU32,
    /// Ejections so far.
    pub(crate) ejections: AtomicU32,
    bad_in_row: AtomicU32,
    ejected_in_row: AtomicU32,
    /// Milliseconds since the gateway started; 0 is never.
    ejected_until: AtomicU64,
    pools: OnceLock<Box<[Pool]>>,
    threads: usize,
}

/// The connections of one thread: a socket belongs to the thread whose event loop watches it.
#[derive(Debug, Default)]
struct Pool {
    idle: Mutex<Vec<Link>>,
    /// Whether its thread looks after it.
    noted: AtomicBool,
    grpc: Mutex<Option<Grpc>>,
}

impl Replica {
    pub(crate) fn new(route: &RouteReplica, threads: usize) -> Self {
        Self {
            id: route.id.0.clone(),
            label: HeaderValue::from_str(&route.id.0).unwrap_or(UNWRITABLE),
            address: route.address.clone(),
            outstanding: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            bad_in_row: AtomicU32::new(0),
            ejected_in_row: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            pools: OnceLock::new(),
            threads,
        }
    }

    /// Whether the route names this very replica.
    pub(crate) fn is(&self, route: &RouteReplica) -> bool {
        self.id == route.id.0 && self.address == route.address
    }

    /// Whether it is avoided now. `now_ms` is asked only of one that was ever ejected.
    pub(crate) fn is_ejected(&self, now_ms: impl Fn() -> u64) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until != 0 && until > now_ms()
    }

    /// It answered as it should.
    pub(crate) fn answered_well(&self) {
        // Mostly there is nothing to forget, and then nothing is written.
        if self.bad_in_row.load(Ordering::Relaxed) != 0 {
            self.bad_in_row.store(0, Ordering::Relaxed);
        }
        if self.ejected_in_row.load(Ordering::Relaxed) != 0 {
            self.ejected_in_row.store(0, Ordering::Relaxed);
            self.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    /// It answered with a fault of its own.
    pub(crate) fn answered_badly(&self, now_ms: u64) {
        if self.bad_in_row.fetch_add(1, Ordering::Relaxed) + 1 >= BAD_ANSWERS {
            self.eject(now_ms);
        }
    }

    /// It could not be reached, or broke off.
    pub(crate) fn eject(&self, now_ms: u64) {
        if self.is_ejected(|| now_ms) {
            // Those who were under way when it was ejected tell nothing new.
            return;
        }
        let times = self.ejected_in_row.fetch_add(1, Ordering::Relaxed).min(6);
        let pause = (FIRST_EJECTION_MS << times).min(LONGEST_EJECTION_MS);
        // Replicas that failed together should not all be tried again together.
        let jitter = rand::random_range(0..=pause / 4);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.ejected_until.store(now_ms + pause + jitter, Ordering::Relaxed);
    }

    fn pool(&self, thread: usize) -> Option<&Pool> {
        self.pools.get_or_init(|| (0..self.threads).map(|_| Pool::default()).collect()).get(thread)
    }

    /// A connection that waits.
    pub(crate) fn take_idle(&self, thread: usize) -> Option<Link> {
        self.pool(thread)?.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps a connection for the next request. True if the thread is to look after this
    /// replica's connections from now on.
    pub(crate) fn keep_idle(&self, thread: usize, link: Link) -> bool {
        let Some(pool) = self.pool(thread) else { return false };
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(link);
        }
        !pool.noted.swap(true, Ordering::Relaxed)
    }

    /// Closes connections that were last used before `tick`. Whether any is left.
    pub(crate) fn close_idle(&self, thread: usize, tick: u32) -> bool {
        let Some(pool) = self.pool(thread) else { return false };
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|link| link.used_at >= tick);
        let some = !idle.is_empty();
        pool.noted.store(some, Ordering::Relaxed);
        some
    }

    /// The gRPC connection of a thread.
    pub(crate) fn grpc(&self, thread: usize) -> Option<Grpc> {
        self.pool(thread)?.grpc.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|grpc| !grpc.is_closed())
    }

    /// Sets the gRPC connection of a thread.
    pub(crate) fn set_grpc(&self, thread: usize, grpc: Option<Grpc>) {
        if let Some(pool) = self.pool(thread) {
            *pool.grpc.lock().unwrap_or_else(PoisonError::into_inner) = grpc;
        }
    }
}
