//! The settings of the control plane: `[control]` in modelway.toml.

use std::time::Duration;

use api::deployment::{DEFAULT_PLACEMENT, check_placement};
use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// Settings of the control plane. Every limit is a setting; at a limit the request is refused at once, and the error
/// names the setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on, as `host:port`.
    pub addr: String,
    /// The URL of the gateway for users: the beginning of every deployment's `url`.
    pub gateway_url: String,
    /// The placement of a new deployment whose specification names none.
    pub default_placement: String,
    /// Host names, besides loopback names and IP addresses, that clients may use for the control plane and that web
    /// pages may come from; `*.example.org` includes all subdomains, `*` any host. See [`base::guard`].
    pub allowed_hosts: Vec<String>,
    /// Maximum size of a request body, in bytes. Larger bodies get 413.
    pub max_body_bytes: usize,
    /// Maximum number of connections. Further ones get 503.
    pub max_connections: usize,
    /// Maximum number of gateways that watch the routes. Further ones get 503.
    pub max_watchers: usize,
    /// Maximum number of logs that are read at a time. Further ones get 503.
    pub max_log_streams: usize,
    /// Timeout for the header of a request, in milliseconds.
    pub header_timeout_ms: u64,
    /// Timeout for the body of a request, in milliseconds. After it: 408.
    pub body_timeout_ms: u64,
    /// Timeout until an answer begins, in milliseconds. After it: 503.
    pub request_timeout_ms: u64,
    /// How long a client may read nothing of its answer, in milliseconds, before its connection is closed. This
    /// includes a paused `logs -f`.
    pub stall_timeout_ms: u32,
    /// How long requests in flight may take at shutdown, in milliseconds.
    pub drain_ms: u64,
    /// Interval of checking for new routes from other processes, in milliseconds.
    pub watch_poll_ms: u64,
    /// Interval of heartbeats on a route watch without changes, in milliseconds.
    pub watch_heartbeat_ms: u64,
    /// A worker that was last seen longer ago than this, in milliseconds, is not asked for logs, and its placement counts
    /// as unserved.
    pub worker_seen_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:8081".to_owned(),
            gateway_url: "http://127.0.0.1:8080".to_owned(),
            default_placement: DEFAULT_PLACEMENT.to_owned(),
            allowed_hosts: Vec::new(),
            max_body_bytes: 1 << 20,
            max_connections: 4_096,
            max_watchers: 1_024,
            max_log_streams: 256,
            header_timeout_ms: 10_000,
            body_timeout_ms: 10_000,
            request_timeout_ms: 30_000,
            stall_timeout_ms: 300_000,
            drain_ms: 10_000,
            watch_poll_ms: 200,
            watch_heartbeat_ms: 5_000,
            worker_seen_ms: 30_000,
        }
    }
}

impl Section for Config {
    fn check(&self, faults: &mut Faults) {
        faults.address("addr", &self.addr);
        faults.url("gateway_url", &self.gateway_url);
        if let Err(reason) = check_placement(&self.default_placement) {
            faults.add("default_placement", format!("wrong: {reason}"));
        }
        faults.hosts("allowed_hosts", &self.allowed_hosts);
        faults.positive(&[
            ("max_body_bytes", self.max_body_bytes as u64),
            ("max_connections", self.max_connections as u64),
            ("max_watchers", self.max_watchers as u64),
            ("max_log_streams", self.max_log_streams as u64),
        ]);
        faults.times(&[
            ("header_timeout_ms", self.header_timeout_ms),
            ("body_timeout_ms", self.body_timeout_ms),
            ("request_timeout_ms", self.request_timeout_ms),
            ("stall_timeout_ms", u64::from(self.stall_timeout_ms)),
            ("watch_poll_ms", self.watch_poll_ms),
            ("watch_heartbeat_ms", self.watch_heartbeat_ms),
            ("worker_seen_ms", self.worker_seen_ms),
        ]);
        faults.pauses(&[("drain_ms", self.drain_ms)]);
    }
}

impl Config {
    /// The URL of `model` at the gateway.
    pub(crate) fn infer_url(&self, model: impl std::fmt::Display) -> String {
        format!("{}/v2/models/{model}/infer", self.gateway_url.trim_end_matches('/'))
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_deployment_stands_below_the_gateways() {
        let config = Config { gateway_url: "https://DP_DNS/".to_owned(), ..Config::default() };
        assert_eq!(config.infer_url(api::DeploymentId(26)), "https://DP_DNS/v2/models/md-26/infer");
    }
}
