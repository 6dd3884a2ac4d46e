//! Decides how many of the waiting requests run together.
//!
//! The decision uses the measured cost of earlier runs. If a run has a fixed cost, batching saves it, and batches are
//! as large as the settings and the latency target allow. If the whole cost is in the rows, batching would save nothing
//! and make everybody wait for the last row, so requests run one by one. Untested sizes are approached by doubling; if
//! batching does not pay, it is tried again from time to time.
//!
//! **Invariant:** this module has no clock.

use std::time::Duration;

use super::cost::Cost;
use crate::settings::ModelSettings;

/// If adding a row to a run saves less than this share of its cost, batching does not pay.
const LEAST_GAIN: f64 = 0.1;

/// After this many runs without batching, it is tried again.
const TRY_AGAIN: u64 = 512;

/// The limits of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Maximum number of rows; a larger request runs alone.
    pub(crate) rows: usize,
    /// Maximum number of requests.
    pub(crate) requests: usize,
}

impl Plan {
    /// One request of any size.
    pub(crate) const ONE: Self = Self { rows: 1, requests: 1 };
}

/// The sizes of one model's runs.
#[derive(Debug)]
pub(crate) struct Sizes {
    cost: Cost,
    most: usize,
    /// Descending.
    preferred: Vec<usize>,
    target: Option<Duration>,
    joins: bool,
    alone: u64,
}

impl Sizes {
    /// `joins`: whether the rows of the model are independent, so that requests may be batched at all.
    pub(crate) fn new(settings: &ModelSettings, joins: bool, seen: &[(usize, Duration)]) -> Self {
        let mut preferred = settings.preferred_batch_sizes.clone();
        preferred.retain(|size| (1..=settings.max_batch_size).contains(size));
        preferred.sort_unstable_by(|a, b| b.cmp(a));
        let mut cost = Cost::default();
        for (rows, took) in seen {
            cost.add(*rows, *took);
        }
        let most = settings.max_batch_size;
        Self { cost, most, preferred, target: settings.latency_target, joins: joins && most > 1, alone: 0 }
    }

    /// Records the time of a run.
    pub(crate) fn ran(&mut self, requests: usize, rows: usize, took: Duration) {
        self.cost.add(rows, took);
        self.alone = if requests > 1 { 0 } else { self.alone.saturating_add(1) };
    }

    /// Stops batching: the rows of the model turned out not to be independent.
    pub(crate) fn never_join(&mut self) {
        self.joins = false;
    }

    /// Whether requests may be batched at all.
    pub(crate) fn joins(&self) -> bool {
        self.joins
    }

    /// The limits of the next run, if this many rows wait.
    pub(crate) fn plan(&self, waiting: usize) -> Plan {
        if !self.joins {
            return Plan::ONE;
        }
        let rows = self.most_rows();
        if rows <= 1 {
            // As far as known, batching does not pay.
            let again = self.alone >= TRY_AGAIN && self.target.is_none();
            return if again { Plan { rows: self.most, requests: 2 } } else { Plan::ONE };
        }
        let preferred = self.preferred.iter().copied().find(|size| *size <= rows.min(waiting));
        Plan { rows: preferred.unwrap_or(rows), requests: usize::MAX }
    }

    /// Whether threads should share the waiting requests: more than half of the cost of a run is in its rows.
    pub(crate) fn splits(&self) -> bool {
        self.joins && self.cost.line().is_some_and(|line| line.gain() < 0.5)
    }

    /// The number of rows up to which waiting is useful, if waiting is allowed.
    pub(crate) fn full(&self) -> usize {
        if !self.joins {
            return 1;
        }
        let rows = self.most_rows();
        self.preferred.iter().copied().find(|size| *size <= rows).unwrap_or(rows)
    }

    fn most_rows(&self) -> usize {
        let tried = self.cost.largest().saturating_mul(2).max(1);
        let most = self.most.min(tried);
        match self.cost.line() {
            None => most,
            Some(line) if line.gain() < LEAST_GAIN => 1,
            // A request may arrive just after another run began: both runs must fit into the time.
            Some(line) => self.target.map_or(most, |target| line.rows_in(target / 2, most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn settings() -> ModelSettings {
        ModelSettings { max_batch_size: 64, ..ModelSettings::of_all(&Config::default()) }
    }

    /// The sizes of the runs of a model with that cost, always with enough that waits.
    fn runs(sizes: &mut Sizes, row: u64, run: u64, count: usize) -> Vec<usize> {
        let one = |sizes: &mut Sizes| {
            let plan = sizes.plan(1000);
            let rows = plan.rows.min(plan.requests);
            sizes.ran(rows, rows, Duration::from_micros(row * u64::try_from(rows).unwrap() + run));
            rows
        };
        (0..count).map(|_| one(sizes)).collect()
    }

    #[test]
    fn where_a_run_costs_more_than_its_rows_they_double_up_to_the_maximum() {
        let mut sizes = Sizes::new(&settings(), true, &[]);
        assert_eq!(runs(&mut sizes, 1, 20, 9), [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        let seen = [1, 32].map(|rows| (rows, Duration::from_micros(20 + u64::try_from(rows).unwrap())));
        let mut sizes = Sizes::new(&settings(), true, &seen);
        assert_eq!(runs(&mut sizes, 1, 20, 2), [64, 64]);
    }

    #[test]
    fn where_all_the_cost_is_in_the_rows_requests_run_one_by_one() {
        let mut sizes = Sizes::new(&settings(), true, &[]);
        let made = runs(&mut sizes, 16_000, 100, 1 + 1 + 512 + 3);
        assert_eq!(made[..3], [1, 2, 1]);
        assert!(made[2..514].iter().all(|rows| *rows == 1));
        assert_eq!(made[514..], [2, 1, 1]);
    }

    #[test]
    fn a_model_whose_rows_are_not_independent_is_never_given_two() {
        let mut sizes = Sizes::new(&settings(), false, &[]);
        assert!(runs(&mut sizes, 1, 20, 2000).iter().all(|rows| *rows == 1));
        let mut sizes =
            Sizes::new(&settings(), true, &[(64, Duration::from_micros(84)), (1, Duration::from_micros(21))]);
        assert_eq!(sizes.plan(1000).rows, 64);
        sizes.never_join();
        assert_eq!((sizes.plan(1000), sizes.full()), (Plan::ONE, 1));
    }

    #[test]
    fn a_latency_target_keeps_two_runs_within_it() {
        let seen = [1, 64].map(|rows| (rows, Duration::from_micros(100 * u64::try_from(rows).unwrap() + 100)));
        let target = ModelSettings { latency_target: Some(Duration::from_micros(4_210)), ..settings() };
        let mut sizes = Sizes::new(&target, true, &seen);
        assert_eq!(runs(&mut sizes, 100, 100, 3), [20, 20, 20]);
        let hopeless = ModelSettings { latency_target: Some(Duration::from_micros(50)), ..settings() };
        assert_eq!(runs(&mut Sizes::new(&hopeless, true, &seen), 100, 100, 3), [1, 1, 1]);
    }

    #[test]
    fn the_largest_preferred_size_that_is_there_is_taken() {
        let preferring = ModelSettings { preferred_batch_sizes: vec![8, 32, 16, 100], ..settings() };
        let seen = [1, 64].map(|rows| (rows, Duration::from_micros(u64::try_from(rows).unwrap() + 100)));
        let sizes = Sizes::new(&preferring, true, &seen);
        let rows = [5, 8, 20, 64].map(|waiting| sizes.plan(waiting).rows);
        assert_eq!((rows, sizes.full()), ([64, 8, 16, 32], 32));
    }
}
