//! The metrics of the server, with the names that users' dashboards expect.

mod own;
pub(crate) mod statistics;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::{error::InferError, runtime::own::Own};

/// How many versions that are no longer served still appear. So a scrape sees the last counts of a version that was
/// just unloaded, and the memory of a server that loads many versions does not grow.
const MOST_GONE: usize = 100;

/// The known values of `error_type`: each exists with 0 from the start.
const ERROR_TYPES: [&str; 9] = [
    "invalid_input",
    "too_large",
    "slow_body",
    "not_ready",
    "memory_full",
    "queue_full",
    "timeout",
    "model_failed",
    "client_left",
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model_name: String,
    model_version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    model_name: String,
    model_version: String,
    error_type: &'static str,
}

/// From 0.1 ms, a whole answer of a small model, to a minute.
#[derive(Clone, Debug)]
struct Latency;

impl MetricConstructor<Histogram> for Latency {
    fn new_metric(&self) -> Histogram {
        Histogram::new([
            0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            30.0, 60.0,
        ])
    }
}

/// Powers of two, like many batch sizes.
#[derive(Clone, Debug)]
struct Sizes;

impl MetricConstructor<Histogram> for Sizes {
    fn new_metric(&self) -> Histogram {
        Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0])
    }
}

/// All models' metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    predictions: Family<ModelLabels, Counter>,
    latency: Family<ModelLabels, Histogram, Latency>,
    errors: Family<ErrorLabels, Counter>,
    loaded: Family<ModelLabels, Gauge>,
    cache_hits: Family<ModelLabels, Counter>,
    cache_misses: Family<ModelLabels, Counter>,
    queue_depth: Family<ModelLabels, Gauge>,
    batch_size: Family<ModelLabels, Histogram, Sizes>,
    ignored: Family<ModelLabels, Counter>,
    ignored_columns: Family<ModelLabels, Counter>,
    own: own::OwnMetrics,
    gone: Arc<Gone>,
}

/// Versions that are no longer served, oldest first.
#[derive(Debug, Default)]
struct Gone(Mutex<VecDeque<ModelLabels>>);

impl Gone {
    fn change(&self, labels: &ModelLabels, gone: bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known != labels);
        if gone {
            all.push_back(labels.clone());
        }
    }

    /// Removes the versions over the limit.
    fn take(&self) -> Vec<ModelLabels> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let many = all.len().saturating_sub(MOST_GONE);
        all.drain(..many).collect()
    }
}

/// One model's metrics.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    labels: ModelLabels,
    gone: Arc<Gone>,
    predictions: Counter,
    latency: Histogram,
    errors: Vec<(&'static str, Counter)>,
    loaded: Gauge,
    cache_hits: Counter,
    cache_misses: Counter,
    queue_depth: Gauge,
    batch_size: Histogram,
    ignored: Counter,
    ignored_columns: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = base::metrics::registry();
        let predictions = Family::default();
        let latency = Family::new_with_constructor(Latency);
        let errors = Family::default();
        let loaded = Family::default();
        let cache_hits = Family::default();
        let cache_misses = Family::default();
        let queue_depth = Family::default();
        let batch_size = Family::new_with_constructor(Sizes);
        let ignored = Family::default();
        let ignored_columns = Family::default();
        registry.register("model_predictions", "Requests answered with a prediction", predictions.clone());
        registry.register(
            "model_prediction_latency_seconds",
            "Time from a request's arrival in full to its prediction",
            latency.clone(),
        );
        registry.register("model_prediction_errors", "Requests not answered with a prediction", errors.clone());
        registry.register("model_loaded", "Whether the model is loaded and predicts (1) or not (0)", loaded.clone());
        registry.register("model_cache_hits", "Predictions out of the response cache", cache_hits.clone());
        registry.register(
            "model_cache_misses",
            "Predictions that the response cache did not have and the model made",
            cache_misses.clone(),
        );
        registry.register("model_queue_depth", "Requests that wait for the model", queue_depth.clone());
        registry.register("model_batch_size", "Rows of one run of the model", batch_size.clone());
        registry.register(
            "model_ignored_fields",
            "Fields of requests that no protocol knows, and that were ignored",
            ignored.clone(),
        );
        registry.register(
            "model_ignored_columns",
            "Columns and parameters of requests that an MLflow model does not have, and that were ignored",
            ignored_columns.clone(),
        );
        let own = own::OwnMetrics::default();
        Self {
            registry,
            own,
            predictions,
            latency,
            errors,
            loaded,
            cache_hits,
            cache_misses,
            queue_depth,
            batch_size,
            ignored,
            ignored_columns,
            gone: Arc::default(),
        }
    }

    /// The metrics of one model; they exist, with 0, from now on.
    pub(crate) fn of_model(&self, name: &str, version: &str) -> ModelMetrics {
        let labels = ModelLabels { model_name: name.to_owned(), model_version: version.to_owned() };
        self.gone.change(&labels, false);
        self.forget();
        let error = |error_type| {
            let (model_name, model_version) = (name.to_owned(), version.to_owned());
            (error_type, self.errors.get_or_create_owned(&ErrorLabels { model_name, model_version, error_type }))
        };
        ModelMetrics {
            predictions: self.predictions.get_or_create_owned(&labels),
            latency: self.latency.get_or_create_owned(&labels),
            errors: ERROR_TYPES.map(error).to_vec(),
            loaded: self.loaded.get_or_create_owned(&labels),
            cache_hits: self.cache_hits.get_or_create_owned(&labels),
            cache_misses: self.cache_misses.get_or_create_owned(&labels),
            queue_depth: self.queue_depth.get_or_create_owned(&labels),
            batch_size: self.batch_size.get_or_create_owned(&labels),
            ignored: self.ignored.get_or_create_owned(&labels),
            ignored_columns: self.ignored_columns.get_or_create_owned(&labels),
            gone: Arc::clone(&self.gone),
            labels,
        }
    }

    /// Removes the versions that were unloaded before the last [`MOST_GONE`].
    fn forget(&self) {
        for labels in self.gone.take() {
            for error_type in ERROR_TYPES {
                let (model_name, model_version) = (labels.model_name.clone(), labels.model_version.clone());
                self.errors.remove(&ErrorLabels { model_name, model_version, error_type });
            }
            self.predictions.remove(&labels);
            self.latency.remove(&labels);
            self.loaded.remove(&labels);
            self.cache_hits.remove(&labels);
            self.cache_misses.remove(&labels);
            self.queue_depth.remove(&labels);
            self.batch_size.remove(&labels);
            self.ignored.remove(&labels);
            self.ignored_columns.remove(&labels);
            self.own.forget(&labels.model_name, &labels.model_version);
        }
    }

    /// Counts a client that disconnected before its model was known.
    pub(crate) fn client_left(&self) {
        let error_type = "client_left";
        let labels = ErrorLabels { model_name: String::new(), model_version: String::new(), error_type };
        self.errors.get_or_create_owned(&labels).inc();
    }

    /// Adds the metrics that one instance of a model defines itself.
    pub(crate) fn of_its_own(&self, name: &str, version: &str, own: Arc<Own>) {
        self.own.add(name, version, own);
    }

    /// All metrics as text.
    pub(crate) fn text(&self) -> String {
        const END: &str = "# EOF\n";
        self.forget();
        let mut text = base::metrics::encode(&self.registry);
        text.truncate(text.strip_suffix(END).map_or(text.len(), str::len));
        self.own.write(&mut text);
        text + END
    }
}

impl ModelMetrics {
    pub(crate) fn predicted(&self, took: Duration) {
        self.predictions.inc();
        self.latency.observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, error: &InferError) {
        self.refused_as(error.kind());
    }

    /// Counts an error of a known type.
    pub(crate) fn refused_as(&self, kind: &'static str) {
        if let Some((_, counter)) = self.errors.iter().find(|(known, _)| *known == kind) {
            counter.inc();
        }
    }

    /// Counts a prediction of a model with a response cache.
    pub(crate) fn cached(&self, hit: bool) {
        let counter = if hit { &self.cache_hits } else { &self.cache_misses };
        counter.inc();
    }

    /// Counts fields of a request that were ignored.
    pub(crate) fn ignored(&self, fields: u64) {
        self.ignored.inc_by(fields);
    }

    /// Counts columns of a request that were ignored.
    pub(crate) fn ignored_columns(&self, columns: usize) {
        self.ignored_columns.inc_by(u64::try_from(columns).unwrap_or(u64::MAX));
    }

    pub(crate) fn set_queue_depth(&self, waiting: usize) {
        self.queue_depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Records the size of a run.
    #[allow(clippy::cast_precision_loss, reason = "a number of rows")]
    pub(crate) fn ran(&self, rows: usize) {
        self.batch_size.observe(rows as f64);
    }

    pub(crate) fn set_loaded(&self, loaded: bool) {
        self.loaded.set(i64::from(loaded));
        self.gone.change(&self.labels, !loaded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_versions_that_went_out_of_service_are_shown() {
        let metrics = Metrics::new();
        let load = |version: usize| metrics.of_model("m", &version.to_string());
        let kept = metrics.of_model("m", "kept");
        kept.set_loaded(true);
        for version in 0..1000 {
            let model = load(version);
            model.set_loaded(true);
            model.refused_as("timeout");
            model.set_loaded(false);
        }
        load(900).set_loaded(true);
        let text = metrics.text();
        let shown = |family: &str| text.lines().filter(|line| line.starts_with(&format!("{family}{{"))).count();
        for family in ["model_loaded", "model_predictions_total", "model_batch_size_sum", "model_cache_hits_total"] {
            assert_eq!(shown(family), 102, "{family}");
        }
        assert_eq!(shown("model_prediction_errors_total"), 102 * ERROR_TYPES.len());
        for line in [
            r#"model_loaded{model_name="m",model_version="kept"} 1"#,
            r#"model_loaded{model_name="m",model_version="900"} 1"#,
            r#"model_loaded{model_name="m",model_version="999"} 0"#,
            r#"model_prediction_errors_total{model_name="m",model_version="999",error_type="timeout"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
