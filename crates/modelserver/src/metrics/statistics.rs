//! What one model has done since it was loaded, as Triton's statistics extension tells it.
//!
//! Counters only grow, and are written without a lock, but for those by size, which are written once a run. A
//! reader may see a request counted in one place and not yet in another.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Sizes of runs that are counted each by itself: callers choose the sizes of what they send.
const SIZES_KEPT: usize = 256;

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

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
        self.nanoseconds.fetch_add(nanoseconds(took), Relaxed);
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
    /// Runs by their number of rows; see [`Statistics::batches`].
    batches: Mutex<BTreeMap<usize, Batch>>,
}

/// The parts of one run, in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// Joining rows.
    pub(crate) input: Duration,
    /// In the runtime.
    pub(crate) infer: Duration,
    /// Parting rows.
    pub(crate) output: Duration,
}

/// Runs of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) count: u64,
    pub(crate) input_ns: u64,
    pub(crate) infer_ns: u64,
    pub(crate) output_ns: u64,
}

impl Statistics {
    /// Notes a run of so many rows, for so many requests.
    pub(crate) fn ran(&self, requests: u64, rows: usize, parts: Parts) {
        self.executions.fetch_add(1, Relaxed);
        self.inferences.fetch_add(u64::try_from(rows).unwrap_or(u64::MAX), Relaxed);
        // As Triton has it, each request is charged with the whole of its run.
        let all = u32::try_from(requests).unwrap_or(u32::MAX);
        self.compute_input.add_many(requests, parts.input.saturating_mul(all));
        self.compute_infer.add_many(requests, parts.infer.saturating_mul(all));
        self.compute_output.add_many(requests, parts.output.saturating_mul(all));
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.len() >= SIZES_KEPT && !batches.contains_key(&rows) {
            return;
        }
        let batch = batches.entry(rows).or_default();
        batch.count += 1;
        batch.input_ns += nanoseconds(parts.input);
        batch.infer_ns += nanoseconds(parts.infer);
        batch.output_ns += nanoseconds(parts.output);
    }

    /// Runs by their number of rows, for the first sizes that there were.
    pub(crate) fn batches(&self) -> Vec<(usize, Batch)> {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.iter().map(|(rows, batch)| (*rows, *batch)).collect()
    }

    /// Notes that a request came now.
    #[allow(clippy::disallowed_methods, reason = "a time to show, on which nothing depends")]
    pub(crate) fn touched(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_inference_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }
}
