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

    /// What was counted.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the gateway refused a request that belongs to no revision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// Host or Origin.
    Host,
    /// No such path.
    Path,
    /// No such model or version.
    Model,
    /// A bound on requests in flight.
    Full,
}

pub(crate) const REASONS: [&str; 4] = ["host", "path", "model", "in_flight"];

/// Counters that belong to no deployment.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// By [`Reason`], in the order of [`REASONS`].
    pub(crate) refused: [Count; REASONS.len()],
    /// Requests sent to a replica once more.
    pub(crate) retries: Count,
    /// Kept connections that had ended when they were needed.
    pub(crate) stale: Count,
    /// Connections beyond the bound.
    pub(crate) connections_refused: Count,
    /// Requests in whose hands a replica ended, or its connection did, before it answered.
    pub(crate) broken: Count,
}

impl Counters {
    /// Counts a refusal.
    pub(crate) fn refused(&self, reason: Reason) {
        self.refused[reason as usize].inc();
    }
}
