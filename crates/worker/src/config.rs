//! What a worker can be told.

use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// The section `[worker]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the worker's own HTTP server listens, `host:port`: logs, health, metrics. Port 0 takes a free one.
    pub addr: String,
    /// The `host:port` at which control planes reach that server, if it differs from what it is bound to.
    pub advertise_addr: Option<String>,
    /// How many deployments are worked on at the same time.
    pub concurrency: u32,
    /// For how many milliseconds a deployment is held; renewed while it is worked on. When a worker dies,
    /// others can take over what it had in hand after this time.
    pub lease_ms: u64,
    /// How many milliseconds lie between two scans for what no wake-up has told of.
    pub scan_interval_ms: u64,
    /// How many milliseconds lie between two looks for what the database need no longer keep.
    pub prune_interval_ms: u64,
    /// How many milliseconds lie between two signs of life.
    pub heartbeat_ms: u64,
    /// After how many milliseconds without a sign of life a worker counts as gone.
    pub forget_after_ms: u64,
    /// How many milliseconds gateways have to see that a replica left the route, before it is told to end.
    pub route_settle_ms: u64,
    /// After how many milliseconds a revision that is not ready counts as failed.
    pub start_deadline_ms: u64,
    /// The longest wait, in milliseconds, before a deployment whose reconciliation failed is tried again.
    pub retry_cap_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:0".to_owned(),
            advertise_addr: None,
            concurrency: 32,
            lease_ms: 5_000,
            scan_interval_ms: 10_000,
            prune_interval_ms: 600_000,
            heartbeat_ms: 5_000,
            forget_after_ms: 20_000,
            route_settle_ms: 500,
            start_deadline_ms: 600_000,
            retry_cap_ms: 60_000,
        }
    }
}

impl Section for Config {
    fn check(&self, faults: &mut Faults) {
        faults.address("addr", &self.addr);
        if let Some(address) = &self.advertise_addr {
            faults.address("advertise_addr", address);
        }
        faults.positive(&[("concurrency", u64::from(self.concurrency))]);
        faults.times(&[
            ("lease_ms", self.lease_ms),
            ("scan_interval_ms", self.scan_interval_ms),
            ("prune_interval_ms", self.prune_interval_ms),
            ("heartbeat_ms", self.heartbeat_ms),
            ("forget_after_ms", self.forget_after_ms),
            ("start_deadline_ms", self.start_deadline_ms),
            ("retry_cap_ms", self.retry_cap_ms),
        ]);
        faults.pauses(&[("route_settle_ms", self.route_settle_ms)]);
        // A worker that lives must not count as gone between two signs of life.
        faults.at_most(("heartbeat_ms", self.heartbeat_ms), ("forget_after_ms", self.forget_after_ms));
    }
}
