//! What a model takes and gives.

use serde::Deserialize;

/// What a model says of itself: Open Inference Protocol, "Model Metadata Response JSON Object".
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) inputs: Vec<TensorMetadata>,
    #[serde(default)]
    pub(super) outputs: Vec<TensorMetadata>,
}

/// One input or output: its name, its datatype, and its shape with -1 for what varies.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct TensorMetadata {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) shape: Vec<i64>,
}
