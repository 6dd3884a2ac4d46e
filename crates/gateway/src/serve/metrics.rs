//! The gateway's metrics.
//!
//! Series of deployments and replicas are read from the route table at each scrape, so they exist exactly as long as
//! the deployment or replica, and requests for unknown names create no series.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures::FutureExt as _;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::app::App;
use crate::{
    observe::{
        counters::REASONS,
        pages,
        usage::{self, Usage},
    },
    table::{
        endpoint::{Endpoint, Revision},
        stats::Stats,
    },
};

/// All metrics as OpenMetrics text. Concurrent requests get the same page and cost one scrape.
pub(crate) async fn of_gateway(app: &Arc<App>) -> Bytes {
    app.pages.join(|| scrape(Arc::clone(app)).map(Bytes::from)).await
}

/// Asks replicas for their resource usage, within limits.
async fn scrape(app: Arc<App>) -> String {
    let tasks = app.gateway.tasks.clone();
    let asks = Arc::clone(&app);
    let usages = tasks.spawn_on(&app.runtime, async move { usage::collect(&asks.usages, &asks.gateway.table).await });
    let usages = usages.await.unwrap_or_default();
    // Writing a table of many endpoints takes time; requests must not wait for it.
    let text = tasks.spawn_blocking(move || {
        let mut registry = base::metrics::registry();
        registry.register_collector(Box::new(Scrape { app, usages }));
        base::metrics::encode(&registry)
    });
    text.await.unwrap_or_else(|error| format!("# the metrics could not be written: {error}\n# EOF\n"))
}

/// The metrics of all replicas as one page.
pub(crate) async fn of_replicas(app: &Arc<App>) -> Bytes {
    let page = app.replica_pages.join(|| {
        let tasks = app.gateway.tasks.clone();
        let page = pages::collect(Arc::clone(&app.gateway.table), tasks.clone());
        // Not on this thread: its event loop must answer requests.
        let collecting = tasks.spawn_on(&app.runtime, page);
        async move { collecting.await.unwrap_or_else(|error| format!("# not collected: {error}\n").into()) }
    });
    page.await
}

#[derive(Debug)]
struct Scrape {
    app: Arc<App>,
    usages: Vec<(String, String, Usage)>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.app.gateway.table.all().collect();
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
            let labels = [("deployment", text(endpoint.label()))];
            let count = gauge(endpoint.live.in_flight.load(Ordering::Relaxed));
            family.encode_family(&labels)?.encode_gauge(&count)?;
        }
    }
    Ok(())
}

/// The existing counts, with their deployment and revision.
fn seen(endpoints: &[Arc<Endpoint>]) -> impl Iterator<Item = (&str, String, &Stats)> {
    endpoints.iter().flat_map(|endpoint| {
        // Only endpoints with requests get a label.
        let own = endpoint.live.own.seen().map(|stats| (text(endpoint.label()), String::new(), stats));
        let revisions = endpoint.revisions.iter().filter_map(move |revision: &Arc<Revision>| {
            revision.live.stats.seen().map(|stats| (text(endpoint.label()), revision.number.to_string(), stats))
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
            replicas.map(move |replica| (&**endpoint, &**replica))
        })
    };
    let name = "modelway_gateway_ejections";
    let help = "Times that a replica was avoided because it failed";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (endpoint, replica) in all() {
        let count = u64::from(replica.ejections.load(Ordering::Relaxed));
        if count > 0 {
            let labels = [("deployment", text(endpoint.label())), ("replica", &replica.id)];
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
        for lane in &app.lanes {
            let (sum, count, buckets) = lane.added.snapshot();
            let thread = lane.index.to_string();
            let labels = [("thread", thread.as_str())];
            added.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        let help = "Requests that reached no deployment, by reason";
        let mut family = encoder.encode_descriptor("modelway_gateway_refused", help, None, MetricType::Counter)?;
        for (reason, count) in REASONS.into_iter().zip(&app.gateway.counters.refused) {
            encode(&mut family, &[("reason", reason)], count.get())?;
        }
        let dropped: u64 = app.lanes.iter().map(|lane| lane.records.dropped.load(Ordering::Relaxed)).sum();
        let bare: u64 = app.lanes.iter().map(|lane| lane.records.bare.load(Ordering::Relaxed)).sum();
        for (name, help, count) in [
            ("modelway_gateway_retries", "Retried requests", app.gateway.counters.retries.get()),
            (
                "modelway_gateway_stale_connections",
                "Kept connections to replicas that had closed when they were needed",
                app.gateway.counters.stale.get(),
            ),
            (
                "modelway_gateway_broken_requests",
                "Requests whose connection to a replica broke before it answered",
                app.gateway.counters.broken.get(),
            ),
            (
                "modelway_gateway_connections_refused",
                "Connections beyond gateway.max_connections",
                app.gateway.counters.connections_refused.get(),
            ),
            (
                "modelway_gateway_watch_losses",
                "How often the watch of the control plane broke or could not start",
                app.watch.losses.load(Ordering::Relaxed),
            ),
            (
                "modelway_gateway_records_dropped",
                "Prediction records that were not written because the queue was full or the disk failed",
                dropped + app.gateway.records_lost.load(Ordering::Relaxed),
            ),
            ("modelway_gateway_records_bare", "Prediction records that lost their inputs and outputs", bare),
        ] {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let synced = app.watch.synced_at.load(Ordering::Relaxed);
        let age = if synced == 0 { -1 } else { (app.gateway.now().0 - synced) / 1_000_000 };
        for (name, help, value) in [
            ("modelway_gateway_connections", "Open connections of clients", gauge(app.open.load(Ordering::Relaxed))),
            (
                "modelway_gateway_held_bytes",
                "Request bodies in memory",
                gauge(app.gateway.counts.held_bytes.load(Ordering::Relaxed)),
            ),
            ("modelway_gateway_routes", "Endpoints in the route table", gauge(app.gateway.table.endpoints())),
            ("modelway_gateway_table_version", "Version of the route table", app.gateway.table.version()),
            (
                "modelway_gateway_table_age_seconds",
                "Time since the control plane last confirmed that the table is complete; -1: never",
                age,
            ),
            (
                "modelway_gateway_watch_connected",
                "1 while the watch of the control plane is connected",
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
