//! The statistics of one model since it was loaded, as in Triton's statistics extension.
//!
//! Counters only increase, and are written without a lock, except those by size, which are written once per run. A
//! reader may see a request in one counter and not yet in another.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How many different run sizes are counted separately: clients choose the sizes of their requests.
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
    /// Runs of the model: fewer than requests if requests were batched.
    pub(crate) executions: AtomicU64,
    /// Requests with an answer, from arrival to answer.
    pub(crate) success: Timed,
    /// Requests without one.
    pub(crate) fail: Timed,
    /// Time in the queue.
    pub(crate) queue: Timed,
    /// Preparing inputs: joining rows.
    pub(crate) compute_input: Timed,
    /// In the runtime.
    pub(crate) compute_infer: Timed,
    /// Splitting outputs.
    pub(crate) compute_output: Timed,
    /// Answers from the response cache.
    pub(crate) cache_hit: Timed,
    /// Answers that were not in the cache.
    pub(crate) cache_miss: Timed,
    /// Runs by their number of rows; see [`Statistics::batches`].
    batches: Mutex<BTreeMap<usize, Batch>>,
}

/// The phases of one run, with their durations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// Joining rows.
    pub(crate) input: Duration,
    /// In the runtime.
    pub(crate) infer: Duration,
    /// Splitting rows.
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
    /// Records a run with this many rows, for this many requests.
    pub(crate) fn ran(&self, requests: u64, rows: usize, parts: Parts) {
        self.executions.fetch_add(1, Relaxed);
        self.inferences.fetch_add(u64::try_from(rows).unwrap_or(u64::MAX), Relaxed);
        // As in Triton, each request is charged with the duration of the whole run.
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

    /// Runs by number of rows, for the first sizes that occurred.
    pub(crate) fn batches(&self) -> Vec<(usize, Batch)> {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.iter().map(|(rows, batch)| (*rows, *batch)).collect()
    }

    /// Records the arrival of a request.
    #[allow(clippy::disallowed_methods, reason = "a time to show, on which nothing depends")]
    pub(crate) fn touched(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_inference_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }
}
