//! The settings of `modelway serve`.

use std::path::PathBuf;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// Section `[serve]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A path or URI of what to serve: an ONNX file, a folder with one, or a folder of many.
    pub source: Option<String>,
    /// More places of the same artefact; the first that exists is served.
    pub model_uri: Vec<String>,
    /// The name under which one model is served; else it comes from the name of its file or folder.
    pub model_name: Option<String>,
    /// The name that the server gives itself. Programs that insist on another server's, such as `triton`, can be
    /// told what they want to hear.
    pub server_name: String,
    /// Further names of that model.
    pub alias: Vec<String>,
    /// The version of the one model that is served; of a folder with several, which one to serve.
    pub model_version: Option<String>,
    /// `sha256:…` of the artefact, checked before it is served.
    pub digest: Option<String>,
    /// Since when the replica's revision has had that digest. What else is at its place is refused then.
    pub pinned_since: Option<String>,
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes any free one.
    pub port: u16,
    /// Host names, besides loopback ones and addresses, under which clients call this server: `models.example.org`,
    /// `*.example.org`, or `*` for any. On loopback, and for loading and unloading models, a request by another name
    /// is refused: a web page could send it. Elsewhere all names are taken if none is said.
    pub allowed_hosts: Vec<String>,
    /// A Unix socket to listen on instead.
    pub socket: Option<PathBuf>,
    /// The replica that this server is, for the backend that started it.
    pub replica_id: Option<String>,
    /// A file that gets the reason, as JSON, if the model cannot be served.
    pub termination_message: Option<PathBuf>,
    /// How long to keep answering after SIGTERM, in milliseconds, so that callers learn of it.
    pub drain_ms: u64,
    /// The ONNX Runtime library (`libonnxruntime.so`); else it is looked for in the usual places.
    pub onnxruntime: Option<PathBuf>,
    /// Threads that work on one inference; 0 chooses by the number of CPUs that this process may use.
    pub intra_op_threads: usize,
    /// Copies of each model that work side by side.
    pub instances: usize,
    /// Rows of several requests that may be run as one; 1 runs each request by itself. Only models whose rows
    /// do not influence one another, which is tried when they are loaded, are run so.
    pub max_batch_size: usize,
    /// How long a request may wait for others to be run with it, in microseconds. 0 never waits: whatever came
    /// while the model ran goes next.
    pub max_queue_delay_us: u64,
    /// The time in which answers are wanted, in milliseconds: batches are kept small enough for it. 0: none.
    pub latency_target_ms: u64,
    /// Memory for answers that are kept and given again to the same request, in bytes for each model; 0 keeps
    /// none.
    pub response_cache_bytes: usize,
    /// The interpreter that runs Python models which bring no environment of their own.
    pub python: Option<String>,
    /// The interpreter of Python models, whatever environment they ask for. The deployment of a replica sets it.
    pub model_python: Option<String>,
    /// The folder of the environments of Python models, which servers share. Empty is `modelway` in the user's cache
    /// folder (`$XDG_CACHE_HOME`, else `~/.cache`).
    pub python_dir: PathBuf,
    /// The program `uv`, which builds these environments; else it is looked for in the usual places.
    pub uv: Option<PathBuf>,
    /// Names of environment variables that every Python model gets, credentials too. A server that a person starts
    /// gives its models all variables but credentials; a replica gives them these and a few of the system.
    pub pass_env: Vec<String>,
    /// Whether callers may load and unload models. If this is not said: where only this machine reaches the server,
    /// and it is no replica.
    pub model_control: Option<bool>,
    /// Memory that one worker of a Python model may allocate, in bytes; 0 is four fifths of what this machine or
    /// container has. One that holds more than three quarters of it after a request is replaced.
    pub python_memory_limit_bytes: u64,
    /// Whether callers are told the traceback of a Python model that failed, and the last lines of a worker that died.
    /// The log has both in any case.
    pub send_tracebacks: bool,
    /// The longest that a Python model may take to load, in milliseconds.
    pub load_timeout_ms: u64,
    /// What is different for single models, by their names.
    pub models: crate::settings::OfModels,
    /// Requests that may wait for one model; more are refused with 503.
    pub queue_limit: usize,
    /// The longest time from a request's arrival to its answer, in milliseconds, and between two pieces of a stream. The end
    /// of the server waits for its last requests as long.
    pub request_timeout_ms: u64,
    /// The largest body of a request, in bytes.
    pub body_limit_bytes: usize,
    /// The memory for all bodies of requests and answers at one time, in bytes, apart from small ones; what is beyond
    /// it is refused with 503.
    pub bodies_limit_bytes: usize,
    /// The longest pause within the body of a request, in milliseconds. All of it must come within
    /// `request_timeout_ms`.
    pub body_timeout_ms: u64,
    /// The longest time from a connection's acceptance to the end of its first request's header, and for each later
    /// header, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long a connection may stay without a request, in milliseconds.
    pub idle_timeout_ms: u64,
    /// The longest time for which a client may take nothing of an answer, in milliseconds.
    pub write_timeout_ms: u64,
    /// Connections at one time; more are answered 503 and closed.
    pub max_connections: usize,
    /// The node's cache of artefacts.
    pub cache: artifact::Config,
    /// The program, and its arguments, that calls [`crate::onnx_child`] for an ONNX model in a process of its own; if
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
    /// The folder of what Python models need, after the default is filled in.
    pub(crate) fn python_folder(&self) -> PathBuf {
        if !self.python_dir.as_os_str().is_empty() {
            return self.python_dir.clone();
        }
        let cache = base::config::variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| base::config::variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
        cache.unwrap_or_else(|| PathBuf::from("/var/tmp")).join("modelway")
    }

    /// Every place of the artefact, in the order in which they are tried.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.source.iter().chain(&self.model_uri).cloned().collect()
    }
}
