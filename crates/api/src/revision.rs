//! A revision: an immutable snapshot of everything in a deployment that changes what runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::replica::FoundFiles;
use crate::{
    deployment::{BucketModel, DeploymentSpec, MachineType, ModelSource, RegisteredRef, Resources},
    id::{DeploymentId, RevisionNumber},
    registry::{ModelContent, ModelVersion},
    time::Timestamp,
};

/// The content of a revision. Revisions with equal content run the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionSpec {
    /// The name of the deployment. The replicas answer to it too.
    pub name: Option<String>,
    /// The kind of machine.
    pub machine: MachineType,
    /// The version in the model's answers and in its URL.
    pub model_version: String,
    /// The artefact to serve.
    pub content: ModelContent,
    /// Resources that are reserved for each replica.
    pub request_res: Resources,
    /// Maximum resources of each replica.
    pub limit_res: Resources,
    /// Environment variables of each replica.
    pub env: BTreeMap<String, String>,
    /// Environment variables, and the files that contain their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_from_file: BTreeMap<String, String>,
    /// The request timeout in milliseconds. Each replica ends a run after this time, and gets this time to finish its
    /// running requests when it is told to stop.
    #[serde(default = "DeploymentSpec::default_request_timeout_ms")]
    pub request_timeout_ms: u64,
    /// The interpreter of a Python model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
}

impl RevisionSpec {
    /// The snapshot of `spec`. `registered` is the registry entry if the specification names a registered model.
    ///
    /// For a model in a bucket, the artefact is `<bucket>/<prefix>/<version>`, or `<bucket>/<prefix>` if that does not
    /// exist.
    #[must_use]
    pub fn of(spec: &DeploymentSpec, registered: Option<&ModelVersion>) -> Self {
        let (model_version, content) = match (&spec.model, registered) {
            (_, Some(entry)) => (entry.version.clone(), entry.content.clone()),
            (ModelSource::Bucket(model), None) => (model.version.clone(), bucket_content(model)),
            (ModelSource::Registered(model), None) => (
                model.version.clone(),
                ModelContent::Artifact {
                    uris: vec![format!("models:/{}/{}", model.name, model.version)],
                    digest: None,
                },
            ),
        };
        Self {
            name: spec.name.clone(),
            machine: spec.machine,
            model_version,
            content,
            request_res: spec.request_res.clone(),
            limit_res: spec.limit_res.clone(),
            env: spec.env.clone(),
            env_from_file: spec.env_from_file.clone(),
            request_timeout_ms: spec.request_timeout_ms,
            python: spec.python.clone(),
        }
    }

    /// Whether the files at the location may change. Then the revision is pinned to the files that its first replica
    /// finds.
    #[must_use]
    pub fn needs_pin(&self) -> bool {
        matches!(self.content, ModelContent::Artifact { digest: None, .. })
    }
}

impl RevisionSpec {
    /// The specification `now`, changed so that it runs this revision again. `registered` is the registered version
    /// that the revision was created from. The name does not change.
    #[must_use]
    pub fn restored(&self, now: &DeploymentSpec, registered: Option<RegisteredRef>) -> DeploymentSpec {
        let model = match (registered, &self.content) {
            (Some(registered), _) => ModelSource::Registered(registered),
            (None, ModelContent::Artifact { uris, digest }) => ModelSource::Bucket(BucketModel {
                version: self.model_version.clone(),
                kind: "single".to_owned(),
                // The folder of the version comes before its parent folder.
                bucket: uris.last().cloned().unwrap_or_default(),
                prefix: String::new(),
                digest: digest.clone(),
            }),
            // Only registered versions can be images.
            (None, ModelContent::Image { .. }) => now.model.clone(),
        };
        DeploymentSpec {
            machine: self.machine,
            model,
            request_res: self.request_res.clone(),
            limit_res: self.limit_res.clone(),
            env: self.env.clone(),
            env_from_file: self.env_from_file.clone(),
            request_timeout_ms: self.request_timeout_ms,
            python: self.python.clone(),
            ..now.clone()
        }
    }
}

fn bucket_content(model: &BucketModel) -> ModelContent {
    let bucket = model.bucket.trim_end_matches('/');
    let prefix = model.prefix.trim_matches('/');
    let base = if prefix.is_empty() { bucket.to_owned() } else { format!("{bucket}/{prefix}") };
    // The bucket "/" is the root of the file system.
    let base = if base.is_empty() { "/".to_owned() } else { base };
    if crate::deployment::is_mlflow(&base) {
        // The address contains the version.
        return ModelContent::Artifact { uris: vec![base], digest: model.digest.clone() };
    }
    ModelContent::Artifact { uris: vec![format!("{base}/{}", model.version), base], digest: model.digest.clone() }
}

/// The files that all replicas of a revision serve: those that its first replica found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pin {
    /// The files.
    #[serde(flatten)]
    pub files: FoundFiles,
    /// When they were found.
    #[schema(value_type = String)]
    pub at: Timestamp,
}

/// One revision of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The number of the revision.
    pub number: RevisionNumber,
    /// The content of the revision.
    pub spec: RevisionSpec,
    /// When it was created.
    pub created_at: Timestamp,
    /// The files that it serves; `None` until its first replica has found them.
    #[serde(default)]
    pub pin: Option<Pin>,
}

/// A revision in an API response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionView {
    /// The number of the revision.
    pub number: RevisionNumber,
    /// Whether it is the revision that the specification wants.
    pub wanted: bool,
    /// Whether it is the revision that answers predictions.
    pub serving: bool,
    /// The version in the model's answers.
    pub model_version: String,
    /// The artefact that it serves.
    pub content: ModelContent,
    /// The files that it serves; absent until its first replica has found them.
    #[serde(default)]
    pub pin: Option<Pin>,
    /// When it was created.
    #[serde(with = "crate::time::zulu")]
    #[schema(value_type = String)]
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uris(bucket: &str, prefix: &str) -> Vec<String> {
        let model = BucketModel {
            version: "v1".into(),
            kind: "single".into(),
            bucket: bucket.into(),
            prefix: prefix.into(),
            digest: None,
        };
        match bucket_content(&model) {
            ModelContent::Artifact { uris, .. } => uris,
            ModelContent::Image { .. } => Vec::new(),
        }
    }

    #[test]
    fn what_a_revision_restores_is_that_revision_again() {
        let spec = |value: serde_json::Value| DeploymentSpec::from_json(value).expect("it is valid");
        let old = spec(serde_json::json!({
            "name": "iris", "model": {"bucket": "s3://models/", "prefix": "iris", "version": "3"}, "env": {"A": "1"},
            "request_timeout_ms": 7, "limit_res": {"cpu": "1"}, "env_from_file": {"B": "/b"}, "replicas": 5, "python": "/venv"
        }));
        let now = spec(serde_json::json!({"name": "iris", "model": {"bucket": "/", "version": "4"}, "replicas": 2}));
        for (from, to) in [(&old, &now), (&now, &old)] {
            let revision = RevisionSpec::of(from, None);
            let restored = revision.restored(to, None);
            assert_eq!(RevisionSpec::of(&restored, None), revision);
            assert_eq!(restored.replicas, to.replicas, "what is no part of a revision stays");
        }
    }

    #[test]
    fn a_bucket_names_its_version_folder_first_and_then_the_prefix() {
        assert_eq!(uris("s3://demmodels/", "models"), ["s3://demmodels/models/v1", "s3://demmodels/models"]);
        assert_eq!(uris("/srv/models", ""), ["/srv/models/v1", "/srv/models"]);
        assert_eq!(uris("file:///srv", "/a/b/"), ["file:///srv/a/b/v1", "file:///srv/a/b"]);
        assert_eq!(uris("models:/iris@champion", ""), ["models:/iris@champion"]);
        assert_eq!(uris("runs:/0a1b/model", ""), ["runs:/0a1b/model"]);
    }
}
