//! The names and meanings of the gateway's metrics.
//!
//! Series of deployments and replicas are read from the route table at each scrape, so they exist exactly as long as
//! what they describe, and nobody can make new ones by asking for names that do not exist.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::{
    app::App,
    stats::Stats,
    table::{Endpoint, Revision},
    usage::{self, Usage},
};

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub(crate) fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the gateway refused a request that belongs to no revision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// Host or Origin.
    Host,
    /// No such path.
    Path,
    /// No such model or version.
    Model,
    /// A bound on requests in flight.
    Full,
}

const REASONS: [&str; 4] = ["host", "path", "model", "in_flight"];

/// Counters that belong to no deployment.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    refused: [Count; REASONS.len()],
    /// Requests sent to a replica once more.
    pub(crate) retries: Count,
    /// Kept connections that had ended when they were needed.
    pub(crate) stale: Count,
    /// Connections beyond the bound.
    pub(crate) connections_refused: Count,
    /// Times that the control plane was lost.
    pub(crate) watch_losses: Count,
}

impl Counters {
    /// Counts a refusal.
    pub(crate) fn refused(&self, reason: Reason) {
        self.refused[reason as usize].inc();
    }
}

/// Everything as OpenMetrics text. Asks replicas for their use of the machine, within bounds.
pub(crate) async fn scrape(app: Arc<App>) -> String {
    let usages = usage::collect(&app).await;
    let tasks = app.tasks.clone();
    // A table of many endpoints takes a while to write out; requests must not wait behind it.
    let text = tasks.spawn_blocking(move || {
        let mut registry = base::metrics::registry();
        registry.register_collector(Box::new(Scrape { app, usages }));
        base::metrics::encode(&registry)
    });
    text.await.unwrap_or_else(|error| format!("# the metrics could not be written: {error}\n# EOF\n"))
}

#[derive(Debug)]
struct Scrape {
    app: Arc<App>,
    usages: Vec<(String, String, Usage)>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.app.table.all().collect();
        requests(&endpoints, &mut encoder)?;
        replicas(&endpoints, &self.usages, &mut encoder)?;
        self.own(&mut encoder)
    }
}

fn requests(endpoints: &[Arc<Endpoint>], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let name = "modelway_gateway_requests";
    let help = "Answers by deployment, revision (empty: the gateway's own answer) and status";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (deployment, revision, stats) in seen(endpoints) {
        for (code, count) in stats.codes() {
            let code = code.to_string();
            let labels = [("deployment", deployment), ("revision", &revision), ("code", &code)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    let name = "modelway_gateway_request_duration_seconds";
    let help = "From the end of a request's head to the end of its answer";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (deployment, revision, stats) in seen(endpoints) {
        let (sum, count, buckets) = stats.latency.snapshot();
        if count > 0 {
            let labels = [("deployment", deployment), ("revision", &revision)];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
    }
    let name = "modelway_gateway_requests_in_flight";
    let mut family = encoder.encode_descriptor(name, "Requests being answered", None, MetricType::Gauge)?;
    for endpoint in endpoints {
        if seen(std::slice::from_ref(endpoint)).next().is_some() {
            let labels = [("deployment", text(&endpoint.label))];
            let count = gauge(endpoint.live.in_flight.load(Ordering::Relaxed));
            family.encode_family(&labels)?.encode_gauge(&count)?;
        }
    }
    Ok(())
}

/// The counts that exist, with their deployment and revision.
fn seen(endpoints: &[Arc<Endpoint>]) -> impl Iterator<Item = (&str, String, &Stats)> {
    endpoints.iter().flat_map(|endpoint| {
        let deployment = text(&endpoint.label);
        let own = endpoint.live.own.seen().map(|stats| (deployment, String::new(), stats));
        let revisions = endpoint.revisions.iter().filter_map(move |revision: &Arc<Revision>| {
            revision.live.stats.seen().map(|stats| (deployment, revision.number.to_string(), stats))
        });
        own.into_iter().chain(revisions)
    })
}

fn replicas(
    endpoints: &[Arc<Endpoint>],
    usages: &[(String, String, Usage)],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let all = || {
        endpoints.iter().flat_map(|endpoint| {
            let replicas = endpoint.revisions.iter().flat_map(|revision| revision.replicas.iter());
            replicas.map(|replica| (text(&endpoint.label), &**replica))
        })
    };
    let name = "modelway_gateway_ejections";
    let help = "Times that a replica was avoided because it failed";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (deployment, replica) in all() {
        let count = u64::from(replica.ejections.load(Ordering::Relaxed));
        if count > 0 {
            let labels = [("deployment", deployment), ("replica", &replica.id)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    let name = "modelway_replica_cpu_seconds";
    let help = "CPU time that a replica has used";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (deployment, replica, usage) in usages {
        let labels = [("deployment", deployment.as_str()), ("replica", replica)];
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&usage.cpu_seconds, None)?;
    }
    let name = "modelway_replica_memory_bytes";
    let mut family = encoder.encode_descriptor(name, "Resident memory of a replica", None, MetricType::Gauge)?;
    for (deployment, replica, usage) in usages {
        let labels = [("deployment", deployment.as_str()), ("replica", replica)];
        let bytes = i64::try_from(usage.memory_bytes).unwrap_or(i64::MAX);
        family.encode_family(&labels)?.encode_gauge(&bytes)?;
    }
    Ok(())
}

impl Scrape {
    fn own(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let app = &*self.app;
        let help = "The gateway's own share of a request's time: all but the attempt that was answered";
        let name = "modelway_gateway_added_latency_seconds";
        let mut added = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for shard in app.shards() {
            let (sum, count, buckets) = shard.added.snapshot();
            let thread = shard.index.to_string();
            let labels = [("thread", thread.as_str())];
            added.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        let help = "Requests that reached no deployment, by reason";
        let mut family = encoder.encode_descriptor("modelway_gateway_refused", help, None, MetricType::Counter)?;
        for (reason, count) in REASONS.into_iter().zip(&app.counters.refused) {
            encode(&mut family, &[("reason", reason)], count.get())?;
        }
        let dropped: u64 = app.shards().iter().map(|shard| shard.records.dropped.load(Ordering::Relaxed)).sum();
        let bare: u64 = app.shards().iter().map(|shard| shard.records.bare.load(Ordering::Relaxed)).sum();
        for (name, help, count) in [
            ("modelway_gateway_retries", "Requests sent to a replica once more", app.counters.retries.get()),
            (
                "modelway_gateway_stale_connections",
                "Kept connections to replicas that had ended when they were needed",
                app.counters.stale.get(),
            ),
            (
                "modelway_gateway_connections_refused",
                "Connections beyond gateway.max_connections",
                app.counters.connections_refused.get(),
            ),
            (
                "modelway_gateway_watch_losses",
                "Times that the watch of the control plane broke off or could not begin",
                app.counters.watch_losses.get(),
            ),
            (
                "modelway_gateway_records_dropped",
                "Prediction records that were not written, for want of room or because the disk refused",
                dropped + app.records_lost.load(Ordering::Relaxed),
            ),
            ("modelway_gateway_records_bare", "Prediction records that lost their inputs and outputs", bare),
        ] {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let synced = app.watch.synced_at.load(Ordering::Relaxed);
        let age = if synced == 0 { -1 } else { (app.now().0 - synced) / 1_000_000 };
        for (name, help, value) in [
            ("modelway_gateway_connections", "Open connections of clients", gauge(app.open.load(Ordering::Relaxed))),
            ("modelway_gateway_held_bytes", "Request bodies in memory", gauge(app.held_bytes.load(Ordering::Relaxed))),
            ("modelway_gateway_routes", "Endpoints in the route table", gauge(app.table.endpoints())),
            ("modelway_gateway_table_version", "Version of the route table", app.table.version()),
            (
                "modelway_gateway_table_age_seconds",
                "Since the control plane last said that the table is complete; -1: never",
                age,
            ),
            (
                "modelway_gateway_watch_connected",
                "1 while the control plane is watched",
                i64::from(app.watch.connected.load(Ordering::Relaxed)),
            ),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

fn encode(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, count: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn text(label: &http::HeaderValue) -> &str {
    label.to_str().unwrap_or_default()
}
