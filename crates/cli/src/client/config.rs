//! `[client]`: where the client commands ask.

use std::time::Duration;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// Where the client commands ask: `[client]` in modelway.toml.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The control plane.
    pub control_url: String,
    /// The gateway.
    pub gateway_url: String,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            control_url: "http://127.0.0.1:8081".to_owned(),
            gateway_url: "http://127.0.0.1:8080".to_owned(),
            timeout_ms: 60_000,
        }
    }
}

impl Section for Config {
    fn check(&self, faults: &mut Faults) {
        faults.url("control_url", &self.control_url);
        faults.url("gateway_url", &self.gateway_url);
        faults.times(&[("timeout_ms", self.timeout_ms)]);
    }
}

impl Config {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}
