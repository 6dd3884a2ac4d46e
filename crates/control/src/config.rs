//! The settings of the control plane: `[control]` in modelway.toml.

use std::time::Duration;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// Settings of the control plane. Every bound is a setting; at a bound the answer is immediate and names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen, as `host:port`.
    pub addr: String,
    /// The gateway as users reach it: the beginning of every deployment's `url`.
    pub gateway_url: String,
    /// Host names, beside loopback ones and IP addresses, that requests may be addressed to and web pages
    /// may come from; `*.example.org` for all below, `*` for any. See [`base::guard`].
    pub allowed_hosts: Vec<String>,
    /// The largest body of a request, in bytes. Beyond it: 413.
    pub max_body_bytes: usize,
    /// The most connections at a time. Beyond them: 503.
    pub max_connections: usize,
    /// The most gateways that may watch the routes here at a time. Beyond them: 503.
    pub max_watchers: usize,
    /// The most logs that may be read through here at a time. Beyond them: 503.
    pub max_log_streams: usize,
    /// How long a client may take to send the head of a request, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long a client may take to send a body, in milliseconds. Beyond it: 408.
    pub body_timeout_ms: u64,
    /// How long an answer may take to begin, in milliseconds. Beyond it: 503.
    pub request_timeout_ms: u64,
    /// How long a client may leave an answer unread, in milliseconds, before its connection is closed. A paused
    /// `logs -f` is such a client.
    pub stall_timeout_ms: u32,
    /// How long requests in flight may take to finish at shutdown, in milliseconds.
    pub drain_ms: u64,
    /// How often to look for new routes that another process wrote, in milliseconds.
    pub watch_poll_ms: u64,
    /// How often a route watch without changes repeats how far it is, in milliseconds.
    pub watch_heartbeat_ms: u64,
    /// A worker that was not seen for so long, in milliseconds, is not asked for logs.
    pub worker_seen_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:8081".to_owned(),
            gateway_url: "http://127.0.0.1:8080".to_owned(),
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
    /// The URL at which the gateway answers for `model`.
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
