//! The model registry: models and their immutable versions.

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

/// The content of a model version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelContent {
    /// Files: the first of these URIs that exists.
    Artifact {
        /// The locations to try, in this order.
        uris: Vec<String>,
        /// `sha256:…` that the files must match.
        digest: Option<String>,
    },
    /// A container image that serves the model itself.
    Image {
        /// The image reference, such as `registry/name:tag`.
        reference: String,
    },
}

/// A registered model, as the user describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisteredModelSpec {
    /// The name of the model.
    #[schema(example = "iris")]
    pub name: String,
    /// A description for people.
    #[serde(default)]
    pub description: String,
    /// Labels to find the model by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A registered model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisteredModel {
    /// The description from the user.
    #[serde(flatten)]
    pub spec: RegisteredModelSpec,
    /// When the model was registered.
    #[serde(with = "crate::time::zulu")]
    #[schema(value_type = String)]
    pub created_at: Timestamp,
}

/// A model version, as the user describes it: `uri` or `image`, never both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelVersionSpec {
    /// The name of the version.
    #[schema(example = "v1")]
    pub version: String,
    /// The location of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "s3://demmodels/models/v1")]
    pub uri: Option<String>,
    /// The container image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The format of the files, such as `onnx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `sha256:…` of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A version in the registry. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    /// The model of the version.
    pub model: String,
    /// The name of the version.
    pub version: String,
    /// The content of the version.
    pub content: ModelContent,
    /// The format of the files.
    pub format: Option<String>,
    /// When the version was registered.
    pub created_at: Timestamp,
}

/// A version in an API response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelVersionView {
    /// The model of the version.
    pub model: String,
    /// The description from the user.
    #[serde(flatten)]
    pub spec: ModelVersionSpec,
    /// When the version was registered.
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
    /// The content of the version.
    #[must_use]
    pub fn content(&self) -> ModelContent {
        match &self.image {
            Some(reference) => ModelContent::Image { reference: reference.clone() },
            None => ModelContent::Artifact { uris: self.uri.iter().cloned().collect(), digest: self.digest.clone() },
        }
    }

    /// Reads a version as in `POST /v1/registeredModels/{name}/versions`.
    ///
    /// # Errors
    /// All faults.
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
    /// Reads a model as in `POST /v1/registeredModels`.
    ///
    /// # Errors
    /// All faults.
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
