//! What one model has done since it was loaded, as Triton's statistics extension tells it.
//!
//! Counters only grow, and are written without a lock; a reader may see a request counted in one place and not
//! yet in another.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often, and how long altogether.
#[derive(Debug, Default)]
pub(crate) struct Timed {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Timed {
    /// Counts one that took so long.
    pub(crate) fn add(&self, took: Duration) {
        self.add_many(1, took);
    }

    /// Counts several that took so long altogether.
    pub(crate) fn add_many(&self, count: u64, took: Duration) {
        self.count.fetch_add(count, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Both counters.
    pub(crate) fn get(&self) -> (u64, u64) {
        (self.count.load(Relaxed), self.nanoseconds.load(Relaxed))
    }
}

/// One model's counters.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    /// Milliseconds since 1970 of the last request.
    pub(crate) last_inference_ms: AtomicU64,
    /// Rows that were predicted; a request without rows is one.
    pub(crate) inferences: AtomicU64,
    /// Runs of the model: fewer than requests, where several were run as one.
    pub(crate) executions: AtomicU64,
    /// Requests with an answer, from arrival to answer.
    pub(crate) success: Timed,
    /// Requests without one.
    pub(crate) fail: Timed,
    /// Waiting in the queue.
    pub(crate) queue: Timed,
    /// Making inputs ready: joining rows.
    pub(crate) compute_input: Timed,
    /// In the runtime.
    pub(crate) compute_infer: Timed,
    /// Taking outputs apart again.
    pub(crate) compute_output: Timed,
    /// Answers given from the response cache.
    pub(crate) cache_hit: Timed,
    /// Answers that the cache did not have.
    pub(crate) cache_miss: Timed,
}

impl Statistics {
    /// Notes that a request came now.
    #[allow(clippy::disallowed_methods, reason = "a time to show, on which nothing depends")]
    pub(crate) fn touched(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_inference_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }
}
