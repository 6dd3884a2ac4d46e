//! The statistics extension, in Triton's format.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

use super::answer::{self, Answered};
use crate::{
    metrics::statistics::{Batch, Timed},
    protocol::app::App,
    run::model::Model,
};

/// `GET /v2/models/stats`.
pub(super) fn all(app: &App) -> Answered {
    let mut models = app.models.all();
    models.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    // An alias refers to the same model.
    models.dedup_by(|a, b| std::sync::Arc::ptr_eq(a, b));
    answer::json(&json!({"model_stats": models.iter().map(|model| of(&model.name, model)).collect::<Vec<_>>()}))
}

/// `GET /v2/models/{model}[/versions/{version}]/stats`, with the name from the request.
pub(super) fn one(name: &str, model: &Model) -> Answered {
    answer::json(&json!({"model_stats": [of(name, model)]}))
}

fn of(name: &str, model: &Model) -> Value {
    let statistics = &model.statistics;
    let number = |counter: &AtomicU64| counter.load(Relaxed);
    let timed = |timed: &Timed| {
        let (count, ns) = timed.get();
        json!({"count": count, "ns": ns})
    };
    json!({
        "name": name,
        "version": model.version,
        "last_inference": number(&statistics.last_inference_ms),
        "inference_count": number(&statistics.inferences),
        "execution_count": number(&statistics.executions),
        "inference_stats": {
            "success": timed(&statistics.success),
            "fail": timed(&statistics.fail),
            "queue": timed(&statistics.queue),
            "compute_input": timed(&statistics.compute_input),
            "compute_infer": timed(&statistics.compute_infer),
            "compute_output": timed(&statistics.compute_output),
            "cache_hit": timed(&statistics.cache_hit),
            "cache_miss": timed(&statistics.cache_miss),
        },
        "batch_stats": statistics.batches().into_iter().map(|(size, batch)| batch_of(size, batch)).collect::<Vec<_>>(),
    })
}

/// The runs of one size, each counted with its whole time.
fn batch_of(size: usize, batch: Batch) -> Value {
    let Batch { count, input_ns, infer_ns, output_ns } = batch;
    let timed = |ns: u64| json!({"count": count, "ns": ns});
    json!({
        "batch_size": size,
        "compute_input": timed(input_ns),
        "compute_infer": timed(infer_ns),
        "compute_output": timed(output_ns),
    })
}
