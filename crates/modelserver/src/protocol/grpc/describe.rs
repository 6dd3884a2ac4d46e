//! What is told of models: their configuration, their statistics, the index of all of them.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use inference::Datatype;

use super::messages::proto::{
    DataType, InferBatchStatistics, InferStatistics, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup,
    ModelOutput, ModelParameter, ModelResponseCache, ModelStatistics, ModelTransactionPolicy, ModelVersionPolicy,
    StatisticDuration,
    model_instance_group::Kind,
    model_version_policy::{All, Latest, PolicyChoice, Specific},
    repository_index_response::ModelIndex,
};
use crate::{
    error::InferError,
    metrics::statistics::{Batch, Statistics, Timed},
    repository::registry::Registry,
    repository::{self, IndexEntry, VersionPolicy},
    run::model::Model,
};

/// How a model is served, in Triton's words.
pub(super) fn config(config: repository::ModelConfig) -> ModelConfig {
    let input = |tensor: repository::ConfigTensor| ModelInput {
        name: tensor.name,
        data_type: data_type(tensor.data_type).into(),
        dims: tensor.dims,
    };
    let output = |tensor: repository::ConfigTensor| ModelOutput {
        name: tensor.name,
        data_type: data_type(tensor.data_type).into(),
        dims: tensor.dims,
    };
    let group = |group: repository::InstanceGroup| ModelInstanceGroup {
        name: group.name,
        count: group.count,
        kind: Kind::from_str_name(group.kind).unwrap_or_default().into(),
    };
    let batching = |batching: repository::DynamicBatching| ModelDynamicBatching {
        preferred_batch_size: batching.preferred_batch_size,
        max_queue_delay_microseconds: batching.max_queue_delay_microseconds,
        priority_levels: batching.priority_levels,
        default_priority_level: batching.default_priority_level,
    };
    let policy = match config.version_policy {
        VersionPolicy::Latest { num_versions } => PolicyChoice::Latest(Latest { num_versions }),
        VersionPolicy::All {} => PolicyChoice::All(All {}),
        VersionPolicy::Specific { versions } => PolicyChoice::Specific(Specific { versions }),
    };
    let parameter =
        |(name, text): (String, repository::Text)| (name, ModelParameter { string_value: text.string_value });
    ModelConfig {
        name: config.name,
        platform: config.platform,
        version_policy: Some(ModelVersionPolicy { policy_choice: Some(policy) }),
        max_batch_size: config.max_batch_size,
        input: config.input.into_iter().map(input).collect(),
        output: config.output.into_iter().map(output).collect(),
        instance_group: config.instance_group.into_iter().map(group).collect(),
        default_model_filename: config.default_model_filename,
        dynamic_batching: config.dynamic_batching.map(batching),
        parameters: config.parameters.into_iter().map(parameter).collect(),
        backend: config.backend,
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: config.model_transaction_policy.decoupled }),
        response_cache: Some(ModelResponseCache { enable: config.response_cache.enable }),
    }
}

fn data_type(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bool => DataType::TypeBool,
        Datatype::Uint8 => DataType::TypeUint8,
        Datatype::Uint16 => DataType::TypeUint16,
        Datatype::Uint32 => DataType::TypeUint32,
        Datatype::Uint64 => DataType::TypeUint64,
        Datatype::Int8 => DataType::TypeInt8,
        Datatype::Int16 => DataType::TypeInt16,
        Datatype::Int32 => DataType::TypeInt32,
        Datatype::Int64 => DataType::TypeInt64,
        Datatype::Fp16 => DataType::TypeFp16,
        Datatype::Bf16 => DataType::TypeBf16,
        Datatype::Fp32 => DataType::TypeFp32,
        Datatype::Fp64 => DataType::TypeFp64,
        Datatype::Bytes => DataType::TypeString,
    }
}

/// The statistics of one model, of one version of it, or of all models.
pub(super) fn statistics(models: &Registry, name: &str, version: &str) -> Result<Vec<ModelStatistics>, InferError> {
    if name.is_empty() {
        let mut all: Vec<_> = each_once(models).iter().map(|model| of_model(&model.name, model)).collect();
        all.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        return Ok(all);
    }
    let (newest, versions) = models.described(name, Some(version))?;
    if !version.is_empty() {
        return Ok(vec![of_model(name, &newest)]);
    }
    let found = versions.names().into_iter().map(|version| models.find(name, Some(&version)));
    Ok(found.flatten().map(|(model, _)| of_model(name, &model)).collect())
}

/// All models, without their other names.
fn each_once(models: &Registry) -> Vec<Arc<Model>> {
    let mut seen = HashSet::new();
    models.all().into_iter().filter(|model| seen.insert(Arc::as_ptr(model))).collect()
}

fn of_model(name: &str, model: &Model) -> ModelStatistics {
    let statistics: &Statistics = &model.statistics;
    let timed = |timed: &Timed| {
        let (count, ns) = timed.get();
        Some(StatisticDuration { count, ns })
    };
    ModelStatistics {
        name: name.to_owned(),
        version: model.version.clone(),
        last_inference: statistics.last_inference_ms.load(Relaxed),
        inference_count: statistics.inferences.load(Relaxed),
        execution_count: statistics.executions.load(Relaxed),
        inference_stats: Some(InferStatistics {
            success: timed(&statistics.success),
            fail: timed(&statistics.fail),
            queue: timed(&statistics.queue),
            compute_input: timed(&statistics.compute_input),
            compute_infer: timed(&statistics.compute_infer),
            compute_output: timed(&statistics.compute_output),
            cache_hit: timed(&statistics.cache_hit),
            cache_miss: timed(&statistics.cache_miss),
        }),
        batch_stats: statistics.batches().into_iter().map(|(size, batch)| batch_of(size, batch)).collect(),
    }
}

/// The runs of one size, each counted with its whole time.
fn batch_of(size: usize, batch: Batch) -> InferBatchStatistics {
    let Batch { count, input_ns, infer_ns, output_ns } = batch;
    let timed = |ns| Some(StatisticDuration { count, ns });
    InferBatchStatistics {
        batch_size: u64::try_from(size).unwrap_or(u64::MAX),
        compute_input: timed(input_ns),
        compute_infer: timed(infer_ns),
        compute_output: timed(output_ns),
    }
}

/// One line of the index.
pub(super) fn index_entry(entry: IndexEntry) -> ModelIndex {
    let IndexEntry { name, version, state, reason } = entry;
    ModelIndex { name, version, state: state.word().to_owned(), reason }
}
