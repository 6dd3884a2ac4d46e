//! What is said for one model only.

use std::collections::BTreeMap;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// What is said for one model only. Whatever is missing is as for all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// Copies of the model that work side by side.
    pub instances: Option<usize>,
    /// Threads that work on one inference; 0 chooses by the CPUs that this process may use.
    pub intra_op_threads: Option<usize>,
    /// Requests that may wait for the model; more are refused with 503.
    pub queue_limit: Option<usize>,
    /// The longest time from a request's arrival to its answer, in milliseconds.
    pub request_timeout_ms: Option<u64>,
    /// Rows that may be run as one; 1 runs each request by itself.
    pub max_batch_size: Option<usize>,
    /// Numbers of rows that the model runs best with; the largest that is there is taken.
    pub preferred_batch_sizes: Option<Vec<usize>>,
    /// How long a request may wait for others to be run with it, in microseconds.
    pub max_queue_delay_us: Option<u64>,
    /// The time in which an answer is wanted, in milliseconds: batches are kept small enough for it. 0: none.
    pub latency_target_ms: Option<u64>,
    /// The number of priorities: 1 is served first. 0: all requests are alike.
    pub priority_levels: Option<u32>,
    /// The priority of requests that name none; 0 is the lowest.
    pub default_priority: Option<u32>,
    /// Memory for answers that are kept and given again to the same request, in bytes; 0 keeps none.
    pub response_cache_bytes: Option<usize>,
    /// The Python interpreter of the model, whatever environment it asks for: a program, or an environment's folder.
    pub python: Option<String>,
}

impl Section for Overrides {
    fn check(&self, faults: &mut Faults) {
        let positive = [
            ("instances", self.instances.map(|count| count as u64)),
            ("queue_limit", self.queue_limit.map(|count| count as u64)),
            ("max_batch_size", self.max_batch_size.map(|size| size as u64)),
            ("request_timeout_ms", self.request_timeout_ms),
        ];
        for (key, value) in positive {
            faults.positive(&value.map(|value| (key, value)).into_iter().collect::<Vec<_>>());
        }
        if self.preferred_batch_sizes.as_ref().is_some_and(|sizes| sizes.contains(&0)) {
            faults.add("preferred_batch_sizes", "a list with 0, and no batch has 0 rows");
        }
        if let (Some(priority), Some(levels)) = (self.default_priority, self.priority_levels) {
            faults.at_most(("default_priority", priority.into()), ("priority_levels", levels.into()));
        }
    }
}

/// What is said for single models, by their names.
pub type OfModels = BTreeMap<String, Overrides>;
