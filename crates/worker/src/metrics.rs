//! The names of a worker's metrics.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The outcome of a pass over one deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The deployment is settled.
    Settled,
    /// Work is still in progress.
    Underway,
    /// The deployment was removed.
    Gone,
    /// Another worker held the lease.
    Busy,
    /// It has another placement.
    Elsewhere,
    /// Another worker took the lease over during the pass.
    Fenced,
    /// The pass failed and will be retried.
    Failed,
}

impl Outcome {
    const ALL: [Self; 7] =
        [Self::Settled, Self::Underway, Self::Gone, Self::Busy, Self::Elsewhere, Self::Fenced, Self::Failed];

    fn label(self) -> OutcomeLabel {
        let outcome = match self {
            Self::Settled => "settled",
            Self::Underway => "underway",
            Self::Gone => "gone",
            Self::Busy => "busy",
            Self::Elsewhere => "elsewhere",
            Self::Fenced => "fenced",
            Self::Failed => "failed",
        };
        OutcomeLabel { outcome }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The metrics of a worker. Clones share the same values.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reconciles: Family<OutcomeLabel, Counter>,
    reconcile_seconds: Histogram,
    pub(crate) in_hand: Gauge,
    pub(crate) remembered: Gauge,
    pub(crate) queue_errors: Counter,
    pub(crate) scans: Counter,
    pub(crate) scan_errors: Counter,
    pub(crate) scan_found: Counter,
    scan_seconds: Histogram,
    pub(crate) scanned: Gauge,
    pub(crate) strays_removed: Counter,
    pub(crate) strays: Gauge,
    pub(crate) restores: Counter,
}

impl Metrics {
    /// Creates the metrics and registers them in `registry`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            in_hand: Gauge::default(),
            remembered: Gauge::default(),
            queue_errors: Counter::default(),
            scans: Counter::default(),
            scan_errors: Counter::default(),
            scan_found: Counter::default(),
            scan_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            scanned: Gauge::default(),
            strays_removed: Counter::default(),
            strays: Gauge::default(),
            restores: Counter::default(),
        };
        let to = registry.sub_registry_with_prefix("modelway_worker");
        to.register("reconciles", "Passes over deployments, by outcome", metrics.reconciles.clone());
        to.register_with_unit(
            "reconcile_duration",
            "Time of one pass over a deployment, including waits for the gateways",
            Unit::Seconds,
            metrics.reconcile_seconds.clone(),
        );
        to.register("in_hand", "Deployments in progress", metrics.in_hand.clone());
        to.register("unsettled", "Unsettled deployments that this worker knows", metrics.remembered.clone());
        to.register("queue_errors", "Failed calls of the task queue", metrics.queue_errors.clone());
        to.register("scans", "Completed scans", metrics.scans.clone());
        to.register("scan_errors", "Scans that failed", metrics.scan_errors.clone());
        to.register("scan_found", "Deployments that a scan handed over", metrics.scan_found.clone());
        to.register_with_unit("scan_duration", "Time of one scan", Unit::Seconds, metrics.scan_seconds.clone());
        to.register("scanned_deployments", "Deployments in the last scan", metrics.scanned.clone());
        to.register("strays_removed", "Deleted deployments with running replicas", metrics.strays_removed.clone());
        to.register("stray_replicas", "Running replicas that do not belong to this database", metrics.strays.clone());
        to.register(
            "database_restores",
            "How often the database turned out to be an older copy",
            metrics.restores.clone(),
        );
        for outcome in Outcome::ALL {
            drop(metrics.reconciles.get_or_create(&outcome.label()));
        }
        metrics
    }

    pub(crate) fn reconciled(&self, outcome: Outcome, took: Duration) {
        self.reconciles.get_or_create(&outcome.label()).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn scan_took(&self, took: Duration) {
        self.scans.inc();
        self.scan_seconds.observe(took.as_secs_f64());
    }
}
