//! The cost of a run: a time per row and a fixed time per run, fitted to the measured run times.
//!
//! Runs of similar sizes are averaged, with more weight for recent ones, and a line `row × n + run` is fitted to the
//! averages with minimal relative errors; old averages count less. Averages by size keep the cost of a single row while
//! the model runs only full batches, and vice versa.
//!
//! **Invariant:** this module has no clock; the caller measures the run times.

use std::time::Duration;

/// Sizes are grouped by their number of bits.
const SIZES: usize = 24;

/// An average is made from about this many runs.
const REMEMBERED: f64 = 16.0;

/// After this many runs without one of its size, the weight of an average is halved.
const HALF_LIFE: f64 = 4096.0;

/// The minimum weight of an average.
const LEAST_WEIGHT: f64 = 1e-3;

/// A run that took longer than this multiple of its average was disturbed by other load.
const DISTURBED: f64 = 3.0;

/// The number of runs of one size after which its average is used to detect disturbed runs.
const TRUSTED: f64 = 4.0;

/// The measured run times.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    sizes: [Size; SIZES],
    runs: u64,
    largest: usize,
    line: Option<Line>,
}

/// The average of runs of similar sizes.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    count: f64,
    rows: f64,
    seconds: f64,
    last: u64,
}

/// `row × n + run`, in seconds. Neither is negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    /// The time per row.
    pub(crate) row: f64,
    /// The fixed time per run.
    pub(crate) run: f64,
}

impl Line {
    /// The share of the time of a single-row run that is saved by each row in a larger run, 0 to 1.
    pub(crate) fn gain(self) -> f64 {
        self.run / (self.row + self.run).max(f64::MIN_POSITIVE)
    }

    /// How many rows can run in a given time, at least one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cut off at what is asked for")]
    pub(crate) fn rows_in(self, time: Duration, most: usize) -> usize {
        let rows = (time.as_secs_f64() - self.run) / self.row.max(f64::MIN_POSITIVE);
        (rows.max(1.0) as usize).min(most.max(1))
    }
}

impl Cost {
    /// Records that a run with this many rows took this long.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn add(&mut self, rows: usize, took: Duration) {
        let rows = rows.max(1);
        self.runs += 1;
        self.largest = self.largest.max(rows);
        let place = (rows.ilog2() as usize).min(SIZES - 1);
        let size = &mut self.sizes[place];
        let mut seconds = took.as_secs_f64().max(1e-9);
        if size.count >= TRUSTED {
            seconds = seconds.min(size.seconds * DISTURBED);
        }
        if seconds * DISTURBED < size.seconds {
            // Then the previous runs were disturbed too.
            size.count = 0.0;
        }
        size.count = (size.count + 1.0).min(REMEMBERED);
        size.rows += (rows as f64 - size.rows) / size.count;
        size.seconds += (seconds - size.seconds) / size.count;
        size.last = self.runs;
        self.line = self.fit();
    }

    /// The fitted line, once runs of different sizes were measured.
    pub(crate) fn line(&self) -> Option<Line> {
        self.line
    }

    /// The largest measured run, in rows.
    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    /// Weighted least squares of the relative errors.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    fn fit(&self) -> Option<Line> {
        let seen = || self.sizes.iter().filter(|size| size.count > 0.0);
        seen().nth(1)?;
        // Relative to its average each run is 1. So with u = 1/seconds and v = rows/seconds the errors are run × u +
        // row × v − 1.
        let (mut uu, mut uv, mut vv, mut u1, mut v1) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for size in seen() {
            let age = (self.runs - size.last) as f64;
            let weight = size.count * (-age / HALF_LIFE).exp2().max(LEAST_WEIGHT);
            let (u, v) = (1.0 / size.seconds, size.rows / size.seconds);
            uu += weight * u * u;
            uv += weight * u * v;
            vv += weight * v * v;
            u1 += weight * u;
            v1 += weight * v;
        }
        let determinant = uu * vv - uv * uv;
        let (run, row) = if determinant > 1e-9 * uu * vv {
            ((u1 * vv - v1 * uv) / determinant, (v1 * uu - u1 * uv) / determinant)
        } else {
            (0.0, v1 / vv)
        };
        // A negative result becomes zero, and the other value takes all.
        Some(match (run < 0.0, row < 0.0) {
            (true, _) => Line { row: v1 / vv, run: 0.0 },
            (_, true) => Line { row: 0.0, run: u1 / uu },
            _ => Line { row, run },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros(micros: f64) -> Duration {
        Duration::from_secs_f64(micros / 1e6)
    }

    #[test]
    fn one_size_alone_says_nothing_of_what_another_costs() {
        let mut cost = Cost::default();
        for _ in 0..100 {
            cost.add(1, micros(10.0));
        }
        assert_eq!((cost.line(), cost.largest()), (None, 1));
        cost.add(2, micros(11.0));
        let line = cost.line().unwrap();
        assert!((line.row * 1e6 - 1.0).abs() < 1e-6 && (line.run * 1e6 - 9.0).abs() < 1e-6, "{line:?}");
        assert!((line.gain() - 0.9).abs() < 1e-6);
        assert_eq!((line.rows_in(micros(109.5), 1000), line.rows_in(micros(1.0), 1000)), (100, 1));
        assert_eq!(line.rows_in(micros(109.5), 64), 64);
    }

    #[test]
    fn a_run_that_was_disturbed_spoils_little() {
        let mut cost = Cost::default();
        for _ in 0..20 {
            cost.add(1, micros(10.0));
            cost.add(16, micros(40.0));
        }
        cost.add(1, micros(100_000.0));
        let line = cost.line().unwrap();
        assert!(line.run < micros(12.0).as_secs_f64(), "{line:?}");
    }

    #[test]
    fn it_follows_a_model_that_became_slower() {
        let mut cost = Cost::default();
        for (row, run) in [(1.0, 9.0), (30.0, 1.0)] {
            for rows in (0..400).map(|turn| [1, 4, 16, 64][turn % 4]) {
                cost.add(rows, micros(row * f64::from(u32::try_from(rows).unwrap()) + run));
            }
        }
        let line = cost.line().unwrap();
        assert!((line.row * 1e6 - 30.0).abs() < 0.5 && line.gain() < 0.05, "{line:?}");
    }

    proptest! {
        #[test]
        fn any_runs_give_a_line_that_is_not_negative(runs in prop::collection::vec((1usize..200_000, 1u64..10_000_000), 2..60)) {
            let mut cost = Cost::default();
            for (rows, nanos) in runs {
                cost.add(rows, Duration::from_nanos(nanos));
            }
            if let Some(line) = cost.line() {
                prop_assert!(line.row >= 0.0 && line.run >= 0.0 && (line.row + line.run).is_finite(), "{line:?}");
                prop_assert!((0.0..=1.0).contains(&line.gain()));
                prop_assert!((1..=64).contains(&line.rows_in(Duration::from_millis(1), 64)));
            }
        }

        #[test]
        fn what_a_model_costs_is_found_from_its_runs(row in 0.1f64..1000.0, run in 0.0f64..1000.0, noise in prop::collection::vec(0.95f64..1.05, 64)) {
            let mut cost = Cost::default();
            for (turn, noise) in noise.into_iter().enumerate() {
                let rows = [1usize, 2, 8, 32][turn % 4];
                cost.add(rows, micros((row * [1.0, 2.0, 8.0, 32.0][turn % 4] + run) * noise));
            }
            let line = cost.line().unwrap();
            prop_assert!((line.gain() - run / (row + run)).abs() < 0.1, "{line:?} {row} {run}");
        }
    }
}
