//! The settings of the cache: its limits, and the allowed sources.

use std::path::PathBuf;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// The settings of the cache: its limits, and the allowed sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder of the cache, shared by all processes on this machine. Empty means `modelway/artifacts` in the user's
    /// cache folder (`$XDG_CACHE_HOME`, else `~/.cache`).
    pub dir: PathBuf,
    /// Maximum size of the cache, and of one artefact, in bytes. The least recently used artefacts are removed first.
    pub limit_bytes: u64,
    /// Maximum number of files in one artefact.
    pub max_files: usize,
    /// The allowed sources: `s3`, `gs`, `http`, `https`; `models`, `runs` and `mlflow-artifacts` for an MLflow server;
    /// `file` for this machine, including plain paths.
    pub schemes: Vec<String>,
    /// The MLflow server for `models:/`, `runs:/` and `mlflow-artifacts:/`, as `http://host:port`, or a folder
    /// `mlruns`. Empty means `$MLFLOW_TRACKING_URI`. The credentials come from `$MLFLOW_TRACKING_USERNAME` and
    /// `$MLFLOW_TRACKING_PASSWORD`, or `$MLFLOW_TRACKING_TOKEN`.
    pub mlflow_tracking_uri: String,
    /// The MLflow server with the registered models, if it is a different one. Empty means `$MLFLOW_REGISTRY_URI`.
    pub mlflow_registry_uri: String,
    /// Local artefacts must be in these folders, after links are resolved. Empty allows any folder.
    pub local_roots: Vec<PathBuf>,
    /// Number of attempts for one step before the location counts as unreachable; an attempt with progress does not
    /// count.
    pub attempts: u32,
    /// The delay before the second attempt, in milliseconds. It doubles with each attempt.
    pub backoff_ms: u64,
    /// A connection without data for this time, in milliseconds, counts as broken.
    pub idle_timeout_ms: u64,
}

/// All schemes of addresses.
const SCHEMES: [&str; 8] = ["s3", "gs", "http", "https", "file", "models", "runs", "mlflow-artifacts"];

impl Section for Config {
    fn check(&self, faults: &mut Faults) {
        faults.positive(&[
            ("limit_bytes", self.limit_bytes),
            ("max_files", self.max_files as u64),
            ("attempts", u64::from(self.attempts)),
        ]);
        faults.times(&[("idle_timeout_ms", self.idle_timeout_ms)]);
        faults.pauses(&[("backoff_ms", self.backoff_ms)]);
        for scheme in self.schemes.iter().filter(|scheme| !SCHEMES.contains(&scheme.as_str())) {
            faults.add("schemes", format!("a list with `{scheme}`, and the known ones are {}", SCHEMES.join(", ")));
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            limit_bytes: 20 << 30,
            max_files: 100_000,
            schemes: SCHEMES.map(str::to_owned).to_vec(),
            mlflow_tracking_uri: String::new(),
            mlflow_registry_uri: String::new(),
            local_roots: Vec::new(),
            attempts: 5,
            backoff_ms: 200,
            idle_timeout_ms: 30_000,
        }
    }
}

impl Config {
    /// The MLflow server, or an empty text.
    pub(crate) fn tracking(&self) -> String {
        if !self.mlflow_tracking_uri.is_empty() {
            return self.mlflow_tracking_uri.clone();
        }
        base::config::variable("MLFLOW_TRACKING_URI").unwrap_or_default()
    }

    /// The MLflow server with the registered models, if it is a different one.
    pub(crate) fn registry(&self) -> Option<String> {
        if !self.mlflow_registry_uri.is_empty() {
            return Some(self.mlflow_registry_uri.clone());
        }
        base::config::variable("MLFLOW_REGISTRY_URI")
    }

    /// Whether an MLflow server, or a folder of its files, is configured.
    #[must_use]
    pub fn names_mlflow(&self) -> bool {
        !self.tracking().is_empty() || self.registry().is_some()
    }

    /// The folder of the cache, with the default applied.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        if !self.dir.as_os_str().is_empty() {
            return self.dir.clone();
        }
        let cache = base::config::variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| base::config::variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
        cache.unwrap_or_else(|| PathBuf::from("/var/tmp")).join("modelway/artifacts")
    }
}
