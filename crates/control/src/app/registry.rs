//! The model registry: models and their immutable versions.

use api::{
    decode::{nearest, short},
    registry::{ModelVersion, ModelVersionSpec, RegisteredModel, RegisteredModelSpec},
};
use store::StoreError;

use super::App;
use crate::error::Error;

/// Maximum number of names that are searched for a similar one.
const NAMES_COMPARED: u32 = 1_000;

impl App {
    pub(crate) async fn model_create(&self, spec: &RegisteredModelSpec) -> Result<RegisteredModel, Error> {
        Ok(self.store.model_create(spec, self.now()).await?)
    }

    pub(crate) async fn model_get(&self, name: &str) -> Result<RegisteredModel, Error> {
        match self.store.model_get(name).await {
            Err(StoreError::NotFound { .. }) => Err(self.no_model(name).await?),
            other => Ok(other?),
        }
    }

    pub(crate) async fn model_list(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<RegisteredModel>, Option<String>), Error> {
        Ok(self.store.model_list(after, limit).await?)
    }

    pub(crate) async fn model_delete(&self, name: &str) -> Result<(), Error> {
        match self.store.model_delete(name).await {
            Err(StoreError::NotFound { .. }) => Err(self.no_model(name).await?),
            other => Ok(other?),
        }
    }

    pub(crate) async fn model_version_create(
        &self,
        model: &str,
        spec: &ModelVersionSpec,
    ) -> Result<ModelVersion, Error> {
        match self.store.model_version_create(model, spec, self.now()).await {
            Err(StoreError::NotFound { .. }) => Err(self.no_model(model).await?),
            other => Ok(other?),
        }
    }

    pub(crate) async fn model_version_get(&self, model: &str, version: &str) -> Result<ModelVersion, Error> {
        match self.store.model_version_get(model, version).await {
            Err(StoreError::NotFound { .. }) => Err(self.no_version(model, version).await?),
            other => Ok(other?),
        }
    }

    pub(crate) async fn model_version_list(&self, model: &str) -> Result<Vec<ModelVersion>, Error> {
        self.model_get(model).await?;
        Ok(self.store.model_version_list(model).await?)
    }

    pub(crate) async fn model_version_delete(&self, model: &str, version: &str) -> Result<(), Error> {
        match self.store.model_version_delete(model, version).await {
            Err(StoreError::NotFound { .. }) => Err(self.no_version(model, version).await?),
            other => Ok(other?),
        }
    }

    /// A hint for a caller who named a model that does not exist.
    pub(crate) async fn model_hint(&self, name: &str) -> Result<String, Error> {
        let (models, _) = self.store.model_list(None, NAMES_COMPARED).await?;
        Ok(match nearest(name, models.iter().map(|model| model.spec.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "GET /v1/registeredModels lists the registered models".to_owned(),
        })
    }

    async fn no_model(&self, name: &str) -> Result<Error, Error> {
        let hint = self.model_hint(name).await?;
        Ok(Error::not_found(format!("there is no registered model `{}`; {hint}", short(name))))
    }

    async fn no_version(&self, model: &str, version: &str) -> Result<Error, Error> {
        self.model_get(model).await?;
        let versions = self.store.model_version_list(model).await?;
        let hint = match nearest(version, versions.iter().map(|entry| entry.version.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("GET /v1/registeredModels/{model}/versions lists the existing versions"),
        };
        Ok(Error::not_found(format!("`{model}` has no version `{}`; {hint}", short(version))))
    }
}
