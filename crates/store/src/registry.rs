//! Registered models and their versions.

use api::{
    Timestamp,
    registry::{ModelVersion, ModelVersionSpec, RegisteredModel, RegisteredModelSpec},
};

use crate::{Store, StoreError};

impl Store {
    /// Registers a model.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `name_taken`.
    pub async fn model_create(
        &self,
        spec: &RegisteredModelSpec,
        now: Timestamp,
    ) -> Result<RegisteredModel, StoreError> {
        todo!("{spec:?} {now:?}")
    }

    /// One model.
    pub async fn model_get(&self, name: &str) -> Result<RegisteredModel, StoreError> {
        todo!("{name}")
    }

    /// A page of models in the order of names, after the name `after`, and the name to go on from.
    pub async fn model_list(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<RegisteredModel>, Option<String>), StoreError> {
        todo!("{after:?} {limit}")
    }

    /// Removes a model that has no versions.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `in_use` while it has versions.
    pub async fn model_delete(&self, name: &str) -> Result<(), StoreError> {
        todo!("{name}")
    }

    /// Adds a version to a model.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `exists`; [`StoreError::NotFound`] for the model.
    pub async fn model_version_create(
        &self,
        model: &str,
        spec: &ModelVersionSpec,
        now: Timestamp,
    ) -> Result<ModelVersion, StoreError> {
        todo!("{model} {spec:?} {now:?}")
    }

    /// One version.
    pub async fn model_version_get(&self, model: &str, version: &str) -> Result<ModelVersion, StoreError> {
        todo!("{model} {version}")
    }

    /// All versions of a model: numeric names as numbers, then the others by creation.
    pub async fn model_version_list(&self, model: &str) -> Result<Vec<ModelVersion>, StoreError> {
        todo!("{model}")
    }

    /// Removes a version that no deployment names.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `in_use`, naming the deployments.
    pub async fn model_version_delete(&self, model: &str, version: &str) -> Result<(), StoreError> {
        todo!("{model} {version}")
    }
}
