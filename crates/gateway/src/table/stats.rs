//! Counters and histograms that are cheap enough for every request.
//!
//! A counter here is one relaxed addition. `/metrics` reads them from the route table itself, so the series of an
//! endpoint end with it, and an endpoint without requests has none.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Upper bounds of the latency buckets, in microseconds.
pub(crate) const LATENCY_US: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

/// Upper bounds of the buckets of the gateway's own time, in microseconds.
pub(crate) const ADDED_US: [u64; 16] =
    [10, 20, 30, 50, 75, 100, 150, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// The number of statuses that are counted separately. Few endpoints use more.
const FEW: usize = 6;
/// A counter holds a status in its upper bits and the number of its answers in the others.
const COUNT_BITS: u32 = 48;

/// The answers of one revision, created at the first one.
#[derive(Debug, Default)]
pub(crate) struct LazyStats(OnceLock<Box<Stats>>);

impl LazyStats {
    /// The counts.
    pub(crate) fn get(&self) -> &Stats {
        self.0.get_or_init(Box::default)
    }

    /// The counts, if there was an answer.
    pub(crate) fn seen(&self) -> Option<&Stats> {
        self.0.get().map(|stats| &**stats)
    }
}

/// The answers of one revision.
#[derive(Debug)]
pub(crate) struct Stats {
    codes: Codes,
    /// From the end of the request's header to the end of the answer.
    pub(crate) latency: Histogram,
}

impl Default for Stats {
    fn default() -> Self {
        Self { codes: Codes::default(), latency: Histogram::new(&LATENCY_US) }
    }
}

impl Stats {
    /// Counts an answer.
    pub(crate) fn count(&self, code: u16) {
        self.codes.count(code);
    }

    /// The statuses of the answers, sorted, with their numbers.
    pub(crate) fn codes(&self) -> Vec<(u16, u64)> {
        let mut found = Vec::new();
        let mut codes = Some(&self.codes);
        while let Some(some) = codes {
            let slots = some.slots.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|slot| *slot != 0);
            found.extend(slots.map(|slot| (code_of(slot), slot & ((1 << COUNT_BITS) - 1))));
            codes = some.more.get().map(|more| &**more);
        }
        found.sort_unstable();
        found
    }
}

/// Counters of the statuses that occur. A counter takes the first status that finds it free, and keeps it.
#[derive(Debug, Default)]
struct Codes {
    slots: [AtomicU64; FEW],
    more: OnceLock<Box<Codes>>,
}

impl Codes {
    fn count(&self, code: u16) {
        let new = u64::from(code) << COUNT_BITS | 1;
        for slot in &self.slots {
            let mut seen = slot.load(Ordering::Relaxed);
            if seen == 0 {
                match slot.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return,
                    Err(taken) => seen = taken,
                }
            }
            if code_of(seen) == code {
                slot.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        self.more.get_or_init(Box::default).count(code);
    }
}

fn code_of(slot: u64) -> u16 {
    u16::try_from(slot >> COUNT_BITS).unwrap_or(u16::MAX)
}

/// A histogram of durations.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64; 16],
    buckets: [AtomicU64; 17],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) const fn new(bounds: &'static [u64; 16]) -> Self {
        Self { bounds, buckets: [const { AtomicU64::new(0) }; 17], sum_us: AtomicU64::new(0) }
    }

    /// Counts one duration in microseconds.
    pub(crate) fn observe(&self, us: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Sum in seconds, count, and the upper bound in seconds and count of each bucket, as `encode_histogram` needs
    /// them.
    #[allow(clippy::cast_precision_loss, reason = "a sum of microseconds stays below 2^53 for centuries")]
    pub(crate) fn snapshot(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let bounds = self.bounds.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> =
            bounds.zip(&self.buckets).map(|(bound, count)| (bound, count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.sum_us.load(Ordering::Relaxed) as f64 / 1e6, count, buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_counted_by_itself_from_many_threads() {
        let stats = Stats::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for code in (100..600).chain([200, 200, 999, 1_000]) {
                        stats.count(code);
                    }
                });
            }
        });
        let expected: Vec<_> =
            (100..600).chain([999, 1_000]).map(|code| (code, if code == 200 { 12 } else { 4 })).collect();
        assert_eq!(stats.codes(), expected);
    }
}
