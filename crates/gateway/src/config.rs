//! The settings of the gateway: the section `[gateway]`.

use std::path::PathBuf;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// More serving threads than any machine has CPUs.
const MOST_THREADS: usize = 4_096;

/// How the gateway listens, what it bounds and where it keeps things.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens, `host:port`.
    pub addr: String,
    /// The control plane whose routes it watches.
    pub control_url: String,
    /// Names of this server beside loopback names and IP addresses; `*` switches the check of Host and Origin
    /// off.
    pub allowed_hosts: Vec<String>,
    /// Where the last route table is kept; without it a restarted gateway needs the control plane once.
    pub table_file: Option<PathBuf>,
    /// The folder of the prediction log; without it nothing is recorded.
    pub predictions_dir: Option<PathBuf>,
    /// Threads that serve requests; 0 is one for each CPU.
    pub threads: usize,
    /// Connections of clients open at once. More are answered 503 and closed.
    pub max_connections: usize,
    /// Requests being answered at once. More are answered 503.
    pub max_in_flight: usize,
    /// Requests being answered at once for one deployment. More are answered 429. Bodies that are longer than
    /// `buffer_body_bytes` take at most half of these places.
    pub max_in_flight_per_deployment: usize,
    /// The longest request body. Longer ones are answered 413.
    pub max_body_bytes: u64,
    /// Bodies up to this length are held in memory, so that they can be sent to another replica; longer ones
    /// stream.
    pub buffer_body_bytes: usize,
    /// All held bodies together; at this bound bodies stream.
    pub buffer_total_bytes: usize,
    /// From the first byte of a request to the end of its headers; then 408.
    pub header_timeout_ms: u64,
    /// Between two pieces of a request body; then 408. Also 408: less than 4 KiB a second on average after that time.
    pub body_idle_timeout_ms: u64,
    /// How long a client may take nothing of an answer; then its connection is closed, or over HTTP/2 its call reset.
    pub write_timeout_ms: u64,
    /// How long a connection may stay without a request.
    pub idle_timeout_ms: u64,
    /// How long a connection to a replica may take to be made.
    pub connect_timeout_ms: u64,
    /// How often a request that a replica did not take is offered to another one.
    pub retries: u32,
    /// At shutdown: how long requests in flight may take to end. The log says if a deployment's request timeout is longer.
    pub drain_ms: u64,
    /// Records that wait to be written; more are dropped and counted.
    pub record_queue: usize,
    /// The most of one request's inputs, and of its outputs, that goes into a record.
    pub record_payload_bytes: usize,
    /// The prediction log begins a new file at this size.
    pub record_file_bytes: u64,
    /// All files of the prediction log together; the oldest go.
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
