//! The settings of a worker.

use api::deployment::{DEFAULT_PLACEMENT, check_placement};
use base::config::{Faults, Section};
use serde::{Deserialize, Serialize};

/// The section `[worker]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The placement of the deployments that it works on. Workers of one placement run replicas in the same place. Every other
    /// machine or cluster on the same database needs a placement of its own.
    pub placement: String,
    /// Address of the worker's own HTTP server, `host:port`: logs, health, metrics. Port 0 chooses a free port.
    pub addr: String,
    /// The `host:port` at which control planes reach that server, if it differs from the bound address.
    pub advertise_addr: Option<String>,
    /// Maximum number of deployments that are reconciled at the same time.
    pub concurrency: u32,
    /// Duration of a deployment's lease, in milliseconds; it is renewed during the work. If a worker dies, other
    /// workers can take over its deployments after this time.
    pub lease_ms: u64,
    /// Interval of scans for changes without a wake-up, in milliseconds.
    pub scan_interval_ms: u64,
    /// Interval of pruning old data from the database, in milliseconds.
    pub prune_interval_ms: u64,
    /// Interval of heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// Time without a heartbeat after which a worker counts as gone, in milliseconds.
    pub forget_after_ms: u64,
    /// Time for gateways to notice that a replica was removed from the route, before the replica is told to stop, in
    /// milliseconds.
    pub route_settle_ms: u64,
    /// Time after which a revision that is not ready counts as failed, in milliseconds.
    pub start_deadline_ms: u64,
    /// Maximum delay before a failed reconciliation is retried, in milliseconds.
    pub retry_cap_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            placement: DEFAULT_PLACEMENT.to_owned(),
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
        if let Err(reason) = check_placement(&self.placement) {
            faults.add("placement", format!("wrong: {reason}"));
        }
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
        // A live worker must not count as gone between two heartbeats.
        faults.at_most(("heartbeat_ms", self.heartbeat_ms), ("forget_after_ms", self.forget_after_ms));
    }
}
