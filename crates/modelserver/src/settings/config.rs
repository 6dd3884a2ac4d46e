//! The settings of `modelway serve`.

use std::path::PathBuf;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// Section `[serve]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The path or URI of the source: an ONNX file, a folder with one, or a folder of many models.
    pub source: Option<String>,
    /// Further locations of the same artefact; the first that exists is served.
    pub model_uri: Vec<String>,
    /// The name of a single model; the default is the name of its file or folder.
    pub model_name: Option<String>,
    /// The name that the server reports. Set it for clients that require the name of another server, such as `triton`.
    pub server_name: String,
    /// Further names of the single model.
    pub alias: Vec<String>,
    /// The version of the single model; of a folder with several versions, the one to serve.
    pub model_version: Option<String>,
    /// `sha256:…` of the artefact, which is checked before it is served.
    pub digest: Option<String>,
    /// Since when the replica's revision has that digest. Other files at its location are then refused.
    pub pinned_since: Option<String>,
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 chooses a free port.
    pub port: u16,
    /// Host names, besides loopback names and addresses, that clients may use for this server: `models.example.org`,
    /// `*.example.org`, or `*` for any. On loopback, and for loading and unloading models, a request with another name
    /// is refused, because a web page could send it. Elsewhere all names are allowed if none is set.
    pub allowed_hosts: Vec<String>,
    /// A Unix socket to listen on instead.
    pub socket: Option<PathBuf>,
    /// The id of this replica, for the backend that started it.
    pub replica_id: Option<String>,
    /// File for the reason, as JSON, if the model cannot be served.
    pub termination_message: Option<PathBuf>,
    /// How long to keep answering after SIGTERM, in milliseconds, so that clients notice the shutdown.
    pub drain_ms: u64,
    /// The ONNX Runtime library (`libonnxruntime.so`); by default it is searched in the usual places.
    pub onnxruntime: Option<PathBuf>,
    /// Threads of one inference; 0 chooses by the number of CPUs that this process may use.
    pub intra_op_threads: usize,
    /// Copies of each model that run in parallel.
    pub instances: usize,
    /// Maximum number of rows of several requests in one run; 1 runs each request alone. Only models with independent
    /// rows are batched, which is tested when they are loaded.
    pub max_batch_size: usize,
    /// How long a request may wait for others to be batched, in microseconds. With 0 it never waits: requests that
    /// arrived during a run are next.
    pub max_queue_delay_us: u64,
    /// Target time for answers, in milliseconds; it limits the batch size. 0: none.
    pub latency_target_ms: u64,
    /// Memory of the response cache of each model, in bytes; 0 disables it.
    pub response_cache_bytes: usize,
    /// The interpreter of Python models without their own environment.
    pub python: Option<String>,
    /// The interpreter of Python models, which overrides their environments. The deployment of a replica sets it.
    pub model_python: Option<String>,
    /// Folder for the environments of Python models, which servers share. Empty means `modelway` in the user's cache
    /// folder (`$XDG_CACHE_HOME`, else `~/.cache`).
    pub python_dir: PathBuf,
    /// The program `uv`, which builds these environments; by default it is searched in the usual places.
    pub uv: Option<PathBuf>,
    /// Names of environment variables that every Python model gets, including credentials. A server that a person
    /// starts gives its models all variables except credentials; a replica gives them these and a few system variables.
    pub pass_env: Vec<String>,
    /// Whether clients may load and unload models. If not set: only if just this machine can reach the server, and it
    /// is not a replica.
    pub model_control: Option<bool>,
    /// Memory limit of one worker of a Python model, in bytes; 0 is four fifths of the memory of this machine or
    /// container. A worker that uses more than three quarters of the limit after a request is replaced.
    pub python_memory_limit_bytes: u64,
    /// Whether clients get the traceback of a failed Python model, and the last lines of a worker that died. The log
    /// always has both.
    pub send_tracebacks: bool,
    /// Maximum time for loading a Python model, in milliseconds.
    pub load_timeout_ms: u64,
    /// Settings for single models, by name.
    pub models: crate::settings::OfModels,
    /// Maximum number of waiting requests for one model; further ones get 503.
    pub queue_limit: usize,
    /// Request timeout, from arrival to answer, in milliseconds, and between two pieces of a stream. Shutdown waits
    /// this long for the last requests.
    pub request_timeout_ms: u64,
    /// Maximum size of a request body, in bytes.
    pub body_limit_bytes: usize,
    /// Maximum memory of all bodies of requests and answers together, in bytes, except small ones; requests that need
    /// more get 503.
    pub bodies_limit_bytes: usize,
    /// Maximum pause within a request body, in milliseconds. The whole body must arrive within `request_timeout_ms`.
    pub body_timeout_ms: u64,
    /// Maximum time from the acceptance of a connection to the end of its first request header, and for each later
    /// header, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long a connection may stay without a request, in milliseconds.
    pub idle_timeout_ms: u64,
    /// How long a client may read nothing of an answer, in milliseconds.
    pub write_timeout_ms: u64,
    /// Maximum number of connections; further ones get 503 and are closed.
    pub max_connections: usize,
    /// The artefact cache.
    pub cache: artifact::Config,
    /// The program, and its arguments, that calls [`crate::onnx_child`] for an ONNX model in a separate process; if
    /// empty, this program with the argument [`crate::ONNX_CHILD`].
    #[serde(skip)]
    pub onnx_child: Vec<std::ffi::OsString>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: None,
            model_uri: Vec::new(),
            model_name: None,
            server_name: "modelway".to_owned(),
            alias: Vec::new(),
            model_version: None,
            digest: None,
            pinned_since: None,
            host: "127.0.0.1".to_owned(),
            port: 8080,
            allowed_hosts: Vec::new(),
            socket: None,
            replica_id: None,
            termination_message: None,
            drain_ms: 5_000,
            onnxruntime: None,
            intra_op_threads: 0,
            instances: 1,
            max_batch_size: 64,
            max_queue_delay_us: 0,
            latency_target_ms: 0,
            response_cache_bytes: 0,
            python: None,
            model_python: None,
            python_dir: PathBuf::new(),
            uv: None,
            pass_env: Vec::new(),
            model_control: None,
            python_memory_limit_bytes: 0,
            send_tracebacks: false,
            load_timeout_ms: 600_000,
            models: crate::settings::OfModels::new(),
            queue_limit: 1_000,
            request_timeout_ms: 60_000,
            body_limit_bytes: 64 << 20,
            bodies_limit_bytes: 512 << 20,
            body_timeout_ms: 10_000,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 120_000,
            write_timeout_ms: 30_000,
            max_connections: 20_000,
            cache: artifact::Config::default(),
            onnx_child: Vec::new(),
        }
    }
}

impl Section for Config {
    fn check(&self, faults: &mut Faults) {
        faults.hosts("allowed_hosts", &self.allowed_hosts);
        faults.positive(&[
            ("instances", self.instances as u64),
            ("max_batch_size", self.max_batch_size as u64),
            ("queue_limit", self.queue_limit as u64),
            ("body_limit_bytes", self.body_limit_bytes as u64),
            ("max_connections", self.max_connections as u64),
        ]);
        faults.times(&[
            ("load_timeout_ms", self.load_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("body_timeout_ms", self.body_timeout_ms),
            ("header_timeout_ms", self.header_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("write_timeout_ms", self.write_timeout_ms),
        ]);
        faults.pauses(&[("drain_ms", self.drain_ms), ("latency_target_ms", self.latency_target_ms)]);
        faults.at_most(
            ("body_limit_bytes", self.body_limit_bytes as u64),
            ("bodies_limit_bytes", self.bodies_limit_bytes as u64),
        );
        faults.section("cache", &self.cache);
        faults.below("models", |faults| {
            self.models.iter().for_each(|(name, overrides)| faults.section(name, overrides));
        });
    }
}

impl Config {
    /// The folder for Python environments, with the default applied.
    pub(crate) fn python_folder(&self) -> PathBuf {
        if !self.python_dir.as_os_str().is_empty() {
            return self.python_dir.clone();
        }
        let cache = base::config::variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| base::config::variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
        cache.unwrap_or_else(|| PathBuf::from("/var/tmp")).join("modelway")
    }

    /// All locations of the artefact, in the order in which they are tried.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.source.iter().chain(&self.model_uri).cloned().collect()
    }
}
