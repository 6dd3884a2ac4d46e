//! What the cache may hold and where it may fetch from.

use std::path::PathBuf;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// What the cache may hold and where it may fetch from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The cache's folder, shared by all processes of this machine. Empty is `modelway/artifacts` in the
    /// user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`).
    pub dir: PathBuf,
    /// How much the cache holds before the least recently used goes, and so the most that one artefact may have.
    pub limit_bytes: u64,
    /// How many files one artefact may have.
    pub max_files: usize,
    /// From where artefacts may come: `s3`, `gs`, `http`, `https`; `models`, `runs` and `mlflow-artifacts` are an
    /// MLflow server's; `file` is this machine, also for plain paths.
    pub schemes: Vec<String>,
    /// The MLflow server that `models:/`, `runs:/` and `mlflow-artifacts:/` ask, as `http://host:port`; or a folder
    /// `mlruns`. Empty is `$MLFLOW_TRACKING_URI`. Who we are to it comes from `$MLFLOW_TRACKING_USERNAME` and
    /// `$MLFLOW_TRACKING_PASSWORD`, or `$MLFLOW_TRACKING_TOKEN`.
    pub mlflow_tracking_uri: String,
    /// The MLflow server with the registered models, if that is another one. Empty is `$MLFLOW_REGISTRY_URI`.
    pub mlflow_registry_uri: String,
    /// The folders below which local artefacts must be, after links are followed. Empty is anywhere.
    pub local_roots: Vec<PathBuf>,
    /// How often one step is tried before the place counts as unreachable; a try that got further does not count.
    pub attempts: u32,
    /// The pause before the second try. It doubles with each.
    pub backoff_ms: u64,
    /// A connection that is silent for so long is broken.
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
    /// The MLflow server, or the empty word.
    pub(crate) fn tracking(&self) -> String {
        if !self.mlflow_tracking_uri.is_empty() {
            return self.mlflow_tracking_uri.clone();
        }
        base::config::variable("MLFLOW_TRACKING_URI").unwrap_or_default()
    }

    /// The MLflow server with the registered models, if that is another one.
    pub(crate) fn registry(&self) -> Option<String> {
        if !self.mlflow_registry_uri.is_empty() {
            return Some(self.mlflow_registry_uri.clone());
        }
        base::config::variable("MLFLOW_REGISTRY_URI")
    }

    /// Whether an MLflow server, or a folder of its files, is named.
    #[must_use]
    pub fn names_mlflow(&self) -> bool {
        !self.tracking().is_empty() || self.registry().is_some()
    }

    /// The cache's folder, after the default is filled in.
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
