//! The settings of the gateway: the section `[gateway]`.

use std::path::PathBuf;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// More serving threads than any machine has CPUs.
const MOST_THREADS: usize = 4_096;

/// The settings of the gateway: listeners, limits, paths.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on, `host:port`.
    pub addr: String,
    /// URL of the control plane whose routes it watches.
    pub control_url: String,
    /// Host names of this server, besides loopback names and IP addresses; `*` disables the check of Host and Origin.
    pub allowed_hosts: Vec<String>,
    /// File for the last route table; without it a restarted gateway needs the control plane once.
    pub table_file: Option<PathBuf>,
    /// Folder of the prediction log; without it nothing is recorded.
    pub predictions_dir: Option<PathBuf>,
    /// Number of threads that serve requests; 0 is one per CPU.
    pub threads: usize,
    /// Maximum number of client connections. Further ones get 503 and are closed.
    pub max_connections: usize,
    /// Maximum number of requests in flight. Further ones get 503.
    pub max_in_flight: usize,
    /// Maximum number of requests in flight per deployment. Further ones get 429. Bodies that are longer than
    /// `buffer_body_bytes` take at most half of these places.
    pub max_in_flight_per_deployment: usize,
    /// Maximum size of a request body, in bytes. Longer ones get 413.
    pub max_body_bytes: u64,
    /// Bodies up to this size, in bytes, are held in memory, so that they can be sent to another replica; longer ones
    /// are streamed.
    pub buffer_body_bytes: usize,
    /// Maximum size of all held bodies together, in bytes; at this limit bodies are streamed.
    pub buffer_total_bytes: usize,
    /// Timeout from the first byte of a request to the end of its headers, in milliseconds; then 408.
    pub header_timeout_ms: u64,
    /// Maximum pause between two pieces of a request body, in milliseconds; then 408. After that time, an average rate
    /// below 4 KiB a second also gets 408.
    pub body_idle_timeout_ms: u64,
    /// How long a client may read nothing of an answer, in milliseconds; then its connection is closed, or over HTTP/2
    /// its call is reset.
    pub write_timeout_ms: u64,
    /// How long a connection may stay without a request, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Connect timeout to a replica, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Maximum number of other replicas for a request that a replica did not accept.
    pub retries: u32,
    /// At shutdown: how long requests in flight may take, in milliseconds. The log says if a deployment's request
    /// timeout is longer.
    pub drain_ms: u64,
    /// Maximum number of records that wait to be written; further ones are dropped and counted.
    pub record_queue: usize,
    /// Maximum size of a request's inputs, and of its outputs, in a record, in bytes.
    pub record_payload_bytes: usize,
    /// Size at which the prediction log begins a new file, in bytes.
    pub record_file_bytes: u64,
    /// Maximum size of all files of the prediction log, in bytes; the oldest are deleted.
    pub record_total_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:8080".to_owned(),
            control_url: "http://127.0.0.1:8081".to_owned(),
            allowed_hosts: Vec::new(),
            table_file: None,
            predictions_dir: None,
            threads: 0,
            max_connections: 65_536,
            max_in_flight: 16_384,
            max_in_flight_per_deployment: 4_096,
            max_body_bytes: 64 << 20,
            buffer_body_bytes: 1 << 20,
            buffer_total_bytes: 256 << 20,
            header_timeout_ms: 10_000,
            body_idle_timeout_ms: 30_000,
            write_timeout_ms: 30_000,
            idle_timeout_ms: 120_000,
            connect_timeout_ms: 1_000,
            retries: 2,
            drain_ms: 30_000,
            record_queue: 65_536,
            record_payload_bytes: 16 << 10,
            record_file_bytes: 64 << 20,
            record_total_bytes: 1 << 30,
        }
    }
}

impl Section for Config {
    fn check(&self, faults: &mut Faults) {
        faults.address("addr", &self.addr);
        faults.url("control_url", &self.control_url);
        faults.hosts("allowed_hosts", &self.allowed_hosts);
        if self.threads > MOST_THREADS {
            faults.add("threads", format!("{}, and must be at most {MOST_THREADS}", self.threads));
        }
        faults.positive(&[
            ("max_connections", self.max_connections as u64),
            ("max_in_flight", self.max_in_flight as u64),
            ("max_in_flight_per_deployment", self.max_in_flight_per_deployment as u64),
            ("max_body_bytes", self.max_body_bytes),
            ("record_queue", self.record_queue as u64),
            ("record_file_bytes", self.record_file_bytes),
        ]);
        faults.times(&[
            ("header_timeout_ms", self.header_timeout_ms),
            ("body_idle_timeout_ms", self.body_idle_timeout_ms),
            ("write_timeout_ms", self.write_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("connect_timeout_ms", self.connect_timeout_ms),
        ]);
        faults.pauses(&[("drain_ms", self.drain_ms)]);
        faults.at_most(("record_file_bytes", self.record_file_bytes), ("record_total_bytes", self.record_total_bytes));
    }
}
