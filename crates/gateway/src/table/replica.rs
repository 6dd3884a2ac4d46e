//! The health of one replica: its outstanding requests, and whether it is avoided.
//!
//! A replica that fails is *ejected*: for a time that doubles with each failure it gets no requests while others can
//! serve. Otherwise a replica that fails fast would look idle and attract all requests. The last replica is never
//! really ejected: [`choose`](crate::choose::replica::choose) falls back to ejected ones.
//!
//! A replica that does not answer a probe is *hung*. It gets no requests until it answers one.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use api::{ReplicaId, replica::Address, route::RouteReplica};
use http::HeaderValue;
use tokio::sync::Semaphore;

use crate::wire::headers::LazyValue;

/// The number of consecutive 5xx answers after which a replica is ejected. A failed connection ejects it at once.
const BAD_ANSWERS: u32 = 5;
const FIRST_EJECTION_MS: u64 = 500;
const LONGEST_EJECTION_MS: u64 = 30_000;

static KEYS: AtomicU64 = AtomicU64::new(0);

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    /// A unique number among all replicas of this process.
    pub(crate) key: u64,
    /// Its name.
    pub(crate) id: String,
    label: LazyValue,
    /// Where it listens.
    pub(crate) address: Address,
    /// Requests that it has not answered completely.
    pub(crate) outstanding: AtomicU32,
    /// The number of ejections.
    pub(crate) ejections: AtomicU32,
    bad_in_row: AtomicU32,
    ejected_in_row: AtomicU32,
    /// Milliseconds since the gateway started; 0 is never.
    ejected_until: AtomicU64,
    /// The tick of its last sign of life, or of the request that has been waiting since.
    heard: AtomicU32,
    /// A probe is running.
    probed: AtomicBool,
    hung: AtomicBool,
    /// Held by the one request that is tried here although it may have crashed another replica.
    trial: OnceLock<Box<Semaphore>>,
}

impl Replica {
    pub(crate) fn new(route: RouteReplica) -> Self {
        Self {
            key: KEYS.fetch_add(1, Ordering::Relaxed),
            id: route.id.0,
            label: LazyValue::default(),
            address: route.address,
            outstanding: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            bad_in_row: AtomicU32::new(0),
            ejected_in_row: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            heard: AtomicU32::new(0),
            probed: AtomicBool::new(false),
            hung: AtomicBool::new(false),
            trial: OnceLock::new(),
        }
    }

    /// A replica from the route.
    pub(crate) fn to_route(&self) -> RouteReplica {
        RouteReplica { id: ReplicaId(self.id.clone()), address: self.address.clone() }
    }

    /// Its name as a header.
    pub(crate) fn label(&self) -> &HeaderValue {
        self.label.get(|| self.id.clone())
    }

    /// Whether the route describes this replica.
    pub(crate) fn is(&self, route: &RouteReplica) -> bool {
        self.id == route.id.0 && self.address == route.address
    }

    /// Whether it is ejected now. `now_ms` is evaluated only if it was ever ejected.
    pub(crate) fn is_ejected(&self, now_ms: impl Fn() -> u64) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until != 0 && until > now_ms()
    }

    /// Whether it is hung: it gets no requests until it answers a probe.
    pub(crate) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }

    /// It answered correctly.
    pub(crate) fn answered_well(&self) {
        // Usually there is nothing to reset, and then nothing is written.
        if self.bad_in_row.load(Ordering::Relaxed) != 0 {
            self.bad_in_row.store(0, Ordering::Relaxed);
        }
        if self.ejected_in_row.load(Ordering::Relaxed) != 0 {
            self.ejected_in_row.store(0, Ordering::Relaxed);
            self.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    /// It failed a request. If that ejects it, the milliseconds until it gets requests again.
    pub(crate) fn answered_badly(&self, now_ms: u64) -> Option<u64> {
        let bad = self.bad_in_row.fetch_add(1, Ordering::Relaxed) + 1;
        (bad >= BAD_ANSWERS).then(|| self.eject(now_ms)).flatten()
    }

    /// It could not be reached, or its connection broke. The result is the milliseconds until it gets requests again;
    /// `None`: it is ejected already.
    pub(crate) fn eject(&self, now_ms: u64) -> Option<u64> {
        if self.is_ejected(|| now_ms) {
            // Requests that were in flight at its ejection give no new information.
            return None;
        }
        let times = self.ejected_in_row.fetch_add(1, Ordering::Relaxed).min(6);
        let pause = (FIRST_EJECTION_MS << times).min(LONGEST_EJECTION_MS);
        // Jitter: replicas that failed together should not be retried together.
        let pause = pause + rand::random_range(0..=pause / 4);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.ejected_until.store(now_ms + pause, Ordering::Relaxed);
        Some(pause)
    }

    /// It gets a request at `tick`.
    pub(crate) fn asked(&self, tick: u32) {
        if self.outstanding.fetch_add(1, Ordering::Relaxed) == 0 {
            self.heard.store(tick, Ordering::Relaxed);
        }
    }

    /// A request at it is over.
    pub(crate) fn released(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// It showed a sign of life at `tick`.
    pub(crate) fn heard(&self, tick: u32) {
        if self.heard.load(Ordering::Relaxed) != tick {
            self.heard.store(tick, Ordering::Relaxed);
        }
    }

    /// Whether it has outstanding requests, has sent nothing for `patience` ticks, and is not being probed. The caller
    /// then probes it.
    pub(crate) fn begin_probe(&self, tick: u32, patience: u32) -> bool {
        self.outstanding.load(Ordering::Relaxed) > 0
            && tick.saturating_sub(self.heard.load(Ordering::Relaxed)) > patience
            && !self.probed.swap(true, Ordering::Relaxed)
    }

    /// A probe was not answered. Whether that is news.
    pub(crate) fn hangs(&self) -> bool {
        let news = !self.hung.swap(true, Ordering::Relaxed);
        if news {
            self.ejections.fetch_add(1, Ordering::Relaxed);
        }
        news
    }

    /// A probe was answered at `tick`; it was the last one.
    pub(crate) fn end_probe(&self, tick: u32) {
        self.heard(tick);
        self.hung.store(false, Ordering::Relaxed);
        self.probed.store(false, Ordering::Relaxed);
    }

    /// The place of the one request that is tried here although it may have crashed another replica.
    pub(crate) fn trial(&self) -> &Semaphore {
        self.trial.get_or_init(|| Box::new(Semaphore::new(1)))
    }
}
