//! `[process]`: how replicas are run as processes.

use std::{collections::BTreeMap, path::PathBuf};

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

use super::log;

/// Settings of the process backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder for replicas; set from `--data-dir`.
    pub data_dir: PathBuf,
    /// The program of replicas, called with `serve …`. The default is this program.
    pub executable: Option<PathBuf>,
    /// Environment variables of every replica.
    pub serve_env: BTreeMap<String, String>,
    /// How long a replica that was told to stop continues to answer, in milliseconds.
    pub drain_ms: u64,
    /// A replica that still runs this time after `drain_ms` and its deployment's `request_timeout_ms` is killed; in
    /// milliseconds.
    pub kill_after_ms: u64,
    /// Upper bound of the first random delay before a replica that ended is restarted, in milliseconds. It doubles with
    /// each consecutive failure.
    pub backoff_base_ms: u64,
    /// Maximum of this upper bound, in milliseconds.
    pub backoff_cap_ms: u64,
    /// A replica that was ready for this time, in milliseconds, starts again with short delays.
    pub backoff_reset_ms: u64,
    /// The first delay after a failure that a person must fix, in milliseconds.
    pub permanent_retry_ms: u64,
    /// A replica that sends no report for this time, in milliseconds, is killed.
    pub unresponsive_ms: u64,
    /// A log longer than this, in bytes, is rotated. One copy is kept.
    pub log_max_bytes: u64,
    /// Interval of checking the size of logs, in milliseconds.
    pub log_check_ms: u64,
    /// How many logs of removed replicas are kept.
    pub ended_logs_max: usize,
    /// Maximum total size of these logs, in bytes.
    pub ended_logs_max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            executable: None,
            serve_env: BTreeMap::new(),
            drain_ms: 5_000,
            kill_after_ms: 10_000,
            backoff_base_ms: 250,
            backoff_cap_ms: 300_000,
            backoff_reset_ms: 60_000,
            permanent_retry_ms: 60_000,
            unresponsive_ms: 120_000,
            log_max_bytes: 10 << 20,
            log_check_ms: 10_000,
            ended_logs_max: 50,
            ended_logs_max_bytes: 64 << 20,
        }
    }
}

impl Section for Config {
    fn check(&self, faults: &mut Faults) {
        faults.times(&[
            ("backoff_base_ms", self.backoff_base_ms),
            ("backoff_cap_ms", self.backoff_cap_ms),
            ("permanent_retry_ms", self.permanent_retry_ms),
            ("unresponsive_ms", self.unresponsive_ms),
            ("log_check_ms", self.log_check_ms),
        ]);
        faults.pauses(&[
            ("drain_ms", self.drain_ms),
            ("kill_after_ms", self.kill_after_ms),
            ("backoff_reset_ms", self.backoff_reset_ms),
        ]);
        faults.positive(&[("log_max_bytes", self.log_max_bytes)]);
        faults.at_most(("backoff_base_ms", self.backoff_base_ms), ("backoff_cap_ms", self.backoff_cap_ms));
    }
}

impl Config {
    pub(super) fn ended_logs(&self) -> log::Bounds {
        log::Bounds { files: self.ended_logs_max, bytes: self.ended_logs_max_bytes }
    }
}
