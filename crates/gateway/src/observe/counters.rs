//! Counters that belong to no deployment.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub(crate) fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The current count.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the gateway refused a request that belongs to no revision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// Host or Origin.
    Host,
    /// Unknown path.
    Path,
    /// Unknown model or version.
    Model,
    /// A limit on requests in flight.
    Full,
}

pub(crate) const REASONS: [&str; 4] = ["host", "path", "model", "in_flight"];

/// Counters that belong to no deployment.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// By [`Reason`], in the order of [`REASONS`].
    pub(crate) refused: [Count; REASONS.len()],
    /// Retried requests.
    pub(crate) retries: Count,
    /// Kept connections that had closed when they were needed.
    pub(crate) stale: Count,
    /// Connections above the limit.
    pub(crate) connections_refused: Count,
    /// Requests whose replica, or its connection, ended before it answered.
    pub(crate) broken: Count,
}

impl Counters {
    /// Counts a refusal.
    pub(crate) fn refused(&self, reason: Reason) {
        self.refused[reason as usize].inc();
    }
}
