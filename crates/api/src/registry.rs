//! The model registry: names, and under each its immutable versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    decode::{Faults, Fields},
    deployment::{check_digest, check_name, check_place, check_version},
    problem::Fault,
    time::Timestamp,
};

/// What a model version consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelContent {
    /// Files: the first of these URIs that exists.
    Artifact {
        /// Places to look, in this order.
        uris: Vec<String>,
        /// `sha256:…` that the files must have.
        digest: Option<String>,
    },
    /// A container image that serves the model by itself.
    Image {
        /// Its reference, such as `registry/name:tag`.
        reference: String,
    },
}

/// What a user says of a registered model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisteredModelSpec {
    /// The model's name.
    #[schema(example = "iris")]
    pub name: String,
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
    /// Words to find it by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A registered model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisteredModel {
    /// What the user said.
    #[serde(flatten)]
    pub spec: RegisteredModelSpec,
    /// When it was registered.
    #[serde(with = "crate::time::zulu")]
    #[schema(value_type = String)]
    pub created_at: Timestamp,
}

/// A model version as a person writes it and reads it: `uri` or `image`, never both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelVersionSpec {
    /// The version's name.
    #[schema(example = "v1")]
    pub version: String,
    /// Where the files are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "s3://demmodels/models/v1")]
    pub uri: Option<String>,
    /// The container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The files' format, such as `onnx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `sha256:…` of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A version in the registry. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    /// The model that it belongs to.
    pub model: String,
    /// The version's name.
    pub version: String,
    /// What it consists of.
    pub content: ModelContent,
    /// The files' format.
    pub format: Option<String>,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// A version as the control plane answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelVersionView {
    /// The model that it belongs to.
    pub model: String,
    /// What the user said.
    #[serde(flatten)]
    pub spec: ModelVersionSpec,
    /// When it was registered.
    #[serde(with = "crate::time::zulu")]
    #[schema(value_type = String)]
    pub created_at: Timestamp,
}

impl From<ModelVersion> for ModelVersionView {
    fn from(entry: ModelVersion) -> Self {
        let (uri, image, digest) = match entry.content {
            ModelContent::Artifact { uris, digest } => (uris.into_iter().next(), None, digest),
            ModelContent::Image { reference } => (None, Some(reference), None),
        };
        Self {
            model: entry.model,
            spec: ModelVersionSpec { version: entry.version, uri, image, format: entry.format, digest },
            created_at: entry.created_at,
        }
    }
}

impl ModelVersionSpec {
    /// What the version consists of.
    #[must_use]
    pub fn content(&self) -> ModelContent {
        match &self.image {
            Some(reference) => ModelContent::Image { reference: reference.clone() },
            None => ModelContent::Artifact { uris: self.uri.iter().cloned().collect(), digest: self.digest.clone() },
        }
    }

    /// Reads a version as `POST /v1/registeredModels/{name}/versions` takes it.
    ///
    /// # Errors
    /// Everything wrong with it.
    pub fn from_json(value: Value) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let spec = Fields::of(value, "", &mut faults).and_then(|mut fields| {
            let version = fields.required_text("version");
            if let Some(Err(reason)) = version.as_deref().map(check_version) {
                fields.fault("version", "invalid", reason);
            }
            let (uri, image) = (fields.text("uri"), fields.text("image"));
            if uri.is_some() == image.is_some() {
                fields.fault("uri", "conflict", "give either `uri` (files) or `image` (a container), one of them");
            }
            if let Some(Err(reason)) = uri.as_deref().map(check_place) {
                fields.fault("uri", "invalid", reason);
            }
            let format = fields.text("format");
            let digest = fields.text("digest");
            if let Some(Err(reason)) = digest.as_deref().map(check_digest) {
                fields.fault("digest", "invalid", reason);
            }
            if digest.is_some() && image.is_some() {
                fields.fault("digest", "conflict", "an image carries its digest in its reference, as in name@sha256:…");
            }
            fields.finish();
            Some(Self { version: version?, uri, image, format, digest })
        });
        faults.into_result(spec)
    }
}

impl RegisteredModelSpec {
    /// Reads a model as `POST /v1/registeredModels` takes it.
    ///
    /// # Errors
    /// Everything wrong with it.
    pub fn from_json(value: Value) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let spec = Fields::of(value, "", &mut faults).and_then(|mut fields| {
            let name = fields.required_text("name");
            if let Some(Err(reason)) = name.as_deref().map(check_name) {
                fields.fault("name", "invalid", reason);
            }
            let description = fields.text("description").unwrap_or_default();
            let labels = fields.text_map("labels").unwrap_or_default();
            fields.finish();
            Some(Self { name: name?, description, labels })
        });
        faults.into_result(spec)
    }
}
