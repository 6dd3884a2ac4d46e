//! The effective configuration of a model, as Triton's clients request it; not the content of its file.

use std::collections::BTreeMap;

use inference::{Datatype, TensorMetadata};
use serde::Serialize;

use crate::{
    run::model::Model,
    source::declared::{Declared, Policy, read::type_name},
};

/// The effective configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ModelConfig {
    pub(crate) name: String,
    pub(crate) platform: String,
    pub(crate) backend: String,
    pub(crate) version_policy: VersionPolicy,
    /// Maximum batch size. 0: the dimensions below are those of the whole tensor.
    pub(crate) max_batch_size: i32,
    pub(crate) input: Vec<ConfigTensor>,
    pub(crate) output: Vec<ConfigTensor>,
    pub(crate) instance_group: Vec<InstanceGroup>,
    pub(crate) default_model_filename: String,
    /// Absent if requests are not batched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dynamic_batching: Option<DynamicBatching>,
    pub(crate) parameters: BTreeMap<String, Text>,
    pub(crate) response_cache: ResponseCache,
    pub(crate) model_transaction_policy: TransactionPolicy,
}

impl ModelConfig {
    /// The effective configuration of a loaded model: its signature and its settings, and the rest of its declaration.
    pub(crate) fn of(name: &str, model: &Model, declared: &Declared) -> Self {
        let (signature, settings) = (&model.signature, &model.settings);
        let rows = signature.rows && settings.max_batch_size > 1;
        let tensor = |tensor: &TensorMetadata| ConfigTensor {
            name: tensor.name.clone(),
            data_type: tensor.datatype,
            dims: tensor.shape[usize::from(rows)..].to_vec(),
        };
        let batching = DynamicBatching {
            preferred_batch_size: settings.preferred_batch_sizes.iter().map(|size| narrow(*size)).collect(),
            max_queue_delay_microseconds: u64::try_from(settings.max_queue_delay.as_micros()).unwrap_or(u64::MAX),
            priority_levels: settings.priority_levels.into(),
            default_priority_level: settings.default_priority.into(),
        };
        Self {
            name: name.to_owned(),
            platform: signature.platform.to_owned(),
            backend: backend_of(signature.platform).to_owned(),
            version_policy: match &declared.policy {
                Policy::All => VersionPolicy::All {},
                Policy::Latest(num_versions) => VersionPolicy::Latest { num_versions: *num_versions },
                Policy::Specific(versions) => VersionPolicy::Specific { versions: versions.clone() },
            },
            max_batch_size: if rows { narrow(settings.max_batch_size) } else { 0 },
            input: signature.inputs.iter().map(tensor).collect(),
            output: signature.outputs.iter().map(tensor).collect(),
            instance_group: vec![InstanceGroup {
                name: name.to_owned(),
                kind: "KIND_CPU",
                count: narrow(settings.instances),
            }],
            default_model_filename: declared.default_model_filename.clone().unwrap_or_default(),
            dynamic_batching: rows.then_some(batching),
            parameters: declared
                .parameters
                .iter()
                .map(|(key, value)| (key.clone(), Text { string_value: value.clone() }))
                .collect(),
            response_cache: ResponseCache { enable: settings.response_cache_bytes > 0 },
            model_transaction_policy: TransactionPolicy { decoupled: signature.streams },
        }
    }
}

/// Triton's backend of a platform.
fn backend_of(platform: &str) -> &str {
    match platform {
        "onnxruntime_onnx" => "onnxruntime",
        other => other,
    }
}

fn narrow(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Which versions are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VersionPolicy {
    /// The newest versions.
    Latest {
        /// Their number.
        num_versions: u32,
    },
    /// All available versions.
    All {},
    /// These versions.
    Specific {
        /// Their numbers.
        versions: Vec<i64>,
    },
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ConfigTensor {
    pub(crate) name: String,
    /// `TYPE_FP32` and the like.
    #[serde(serialize_with = "type_word")]
    pub(crate) data_type: Datatype,
    /// Without the batch dimension, if `max_batch_size` is above 0.
    pub(crate) dims: Vec<i64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn type_word<S: serde::Serializer>(datatype: &Datatype, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(type_name(*datatype))
}

/// Copies that run in parallel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct InstanceGroup {
    pub(crate) name: String,
    /// `KIND_CPU`: nothing else is supported.
    pub(crate) kind: &'static str,
    pub(crate) count: i32,
}

/// How requests are batched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DynamicBatching {
    pub(crate) preferred_batch_size: Vec<i32>,
    pub(crate) max_queue_delay_microseconds: u64,
    pub(crate) priority_levels: u64,
    pub(crate) default_priority_level: u64,
}

/// A parameter of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Text {
    pub(crate) string_value: String,
}

/// Whether answers are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ResponseCache {
    pub(crate) enable: bool,
}

/// Whether one request may get several answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TransactionPolicy {
    pub(crate) decoupled: bool,
}
