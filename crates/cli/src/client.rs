//! The commands that send requests to the control plane and the gateway.
//!
//! They use the same REST API as any client: nothing here reads the database or the data folder.

mod apply;
mod changed;
mod delete;
mod deploy;
mod http;
mod look;
mod models;
mod predict;
mod rollback;
mod scale;
pub(crate) mod secret;
mod source;
mod stray;
mod stream;
mod view;
mod wait;

use std::time::Duration;

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

pub use apply::apply;
pub use delete::delete;
pub use deploy::deploy;
pub use http::Control;
pub use look::{describe, get, list};
pub use models::models;
pub use predict::predict;
pub use rollback::rollback;
pub use scale::scale;
pub use stray::strays;
pub use stream::{events, logs};

/// The servers of the client commands: `[client]` in modelway.toml.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// URL of the control plane.
    pub control_url: String,
    /// URL of the gateway.
    pub gateway_url: String,
    /// Timeout of a request, in milliseconds.
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
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}
