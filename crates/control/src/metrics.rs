//! The metrics of the control plane.

use std::time::Duration;

use api::State;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// Upper bounds of the latency buckets, in seconds.
const LATENCY_SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// The metrics of the control plane. Label values are our own route templates, methods and states, so their number is
/// bounded for any requests.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram>,
    deployments: Family<StateLabels, Gauge>,
    store_up: Gauge,
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) route_watchers: Gauge,
}

impl Metrics {
    /// All at zero. `hints_failed` is counted elsewhere.
    pub(crate) fn new(hints_failed: Counter) -> Self {
        let mut metrics = Self {
            registry: base::metrics::registry(),
            requests: Family::default(),
            latency: Family::new_with_constructor(latency_histogram as fn() -> Histogram),
            deployments: Family::default(),
            store_up: Gauge::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            route_watchers: Gauge::default(),
        };
        metrics.register("modelway_control_requests", "Requests answered", |m| m.requests.clone());
        metrics.register(
            "modelway_control_request_duration_seconds",
            "Time from the header of a request to the header of its answer",
            |m| m.latency.clone(),
        );
        metrics.register("modelway_control_requests_in_flight", "Requests being answered", |m| m.in_flight.clone());
        metrics.register("modelway_control_connections", "Open connections", |m| m.connections.clone());
        metrics.register(
            "modelway_control_connections_refused",
            "Connections refused at control.max_connections",
            |m| m.connections_refused.clone(),
        );
        metrics.register("modelway_control_route_watchers", "Gateways that watch the routes", |m| {
            m.route_watchers.clone()
        });
        metrics.register("modelway_deployments", "Deployments by state", |m| m.deployments.clone());
        let help = "Hints to workers that could not be sent; workers find the tasks when they look";
        metrics.registry.register("modelway_control_hints_failed", help, hints_failed);
        metrics.register("modelway_control_store_up", "1 while the database answers", |m| m.store_up.clone());
        metrics
    }

    fn register<M: Metric>(&mut self, name: &str, help: &str, metric: fn(&Self) -> M) {
        let metric = metric(self);
        self.registry.register(name, help, metric);
    }

    pub(crate) fn answered(&self, method: &http::Method, route: &str, code: u16, took: Duration) {
        let method = method_label(method);
        let labels = RequestLabels { method, route: route.to_owned(), code };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { method, route: route.to_owned() };
        self.latency.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// All metrics in the OpenMetrics text format. `deployments` is absent while the database is unavailable.
    pub(crate) fn text(&self, deployments: Option<&[(State, u64)]>) -> String {
        self.store_up.set(i64::from(deployments.is_some()));
        match deployments {
            None => self.deployments.clear(),
            Some(counts) => {
                for (word, state) in State::ALL {
                    let count = counts.iter().find(|(counted, _)| *counted == state).map_or(0, |(_, count)| *count);
                    let gauge = self.deployments.get_or_create(&StateLabels { state: word });
                    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
                }
            }
        }
        base::metrics::encode(&self.registry)
    }
}

fn latency_histogram() -> Histogram {
    Histogram::new(LATENCY_SECONDS)
}

/// Clients can send any method; only known ones become labels.
fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
