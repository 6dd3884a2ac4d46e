//! What every protocol needs: the models, the settings, the state. The protocols translate; the work is here.

use api::{
    inference::{Request, Response, ServerMetadata},
    replica::ReplicaState,
};

use crate::{
    Config,
    budget::Budget,
    caller::Caller,
    error::InferError,
    metrics::Metrics,
    model::Model,
    registry::Registry,
    report::Reporter,
    repository::{IndexEntry, LoadRequest, ModelConfig},
};

/// The extensions of the protocol that work here.
const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "parameters"];

/// The server.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) models: Registry,
    pub(crate) metrics: Metrics,
    pub(crate) reporter: Reporter,
    pub(crate) budget: Budget,
}

impl App {
    pub(crate) fn new(config: Config) -> Self {
        let metrics = Metrics::new();
        if let Some(name) = &config.model_name {
            // Its metrics exist, at 0, while it is being loaded.
            let version = config.model_version.as_deref().unwrap_or(crate::load::FIRST_VERSION);
            metrics.of_model(name, version).set_loaded(false);
        }
        let reporter = Reporter::new(config.replica_id.clone());
        let budget = Budget::new(config.bodies_limit_bytes);
        Self { config, models: Registry::default(), metrics, reporter, budget }
    }

    /// Whether requests are wanted here: every model predicts, and the server is not ending.
    pub(crate) fn is_ready(&self) -> bool {
        self.reporter.state() == ReplicaState::Ready
    }

    /// Why not, in words.
    pub(crate) fn why_not_ready(&self) -> String {
        let why = match self.reporter.state() {
            ReplicaState::Starting | ReplicaState::BackingOff => "the server is still loading its models",
            ReplicaState::Ready => "",
            ReplicaState::Stopping => "the server is ending",
        };
        why.to_owned()
    }

    pub(crate) fn metadata(&self) -> ServerMetadata {
        ServerMetadata {
            name: "modelway".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }
    }

    /// Every version that is known, and how it stands; with `ready_only` those that predict.
    pub(crate) fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        self.models.index(ready_only)
    }

    /// Loads a model, or loads it anew beside the one that serves, which then takes no more requests. Returns
    /// when the new one predicts; if it cannot be loaded, the old one goes on.
    pub(crate) async fn load(&self, name: &str, request: LoadRequest) -> Result<(), InferError> {
        let _ = (name, request);
        Err(InferError::Unsupported("models cannot be loaded while the server runs".to_owned()))
    }

    /// Takes a model out of service; what waits for it is still answered. Returns when no more requests reach it.
    pub(crate) async fn unload(&self, name: &str, unload_dependents: bool) -> Result<(), InferError> {
        let _ = (name, unload_dependents);
        Err(InferError::Unsupported("models cannot be unloaded while the server runs".to_owned()))
    }

    /// The configuration that holds for a model.
    pub(crate) fn model_config(&self, name: &str, version: Option<&str>) -> Result<ModelConfig, InferError> {
        let (model, _) = self.models.find(name, version)?;
        Ok(ModelConfig::of(&model))
    }

    /// Whether one model predicts: an error in words if it does not.
    pub(crate) fn model_ready(&self, name: &str, version: Option<&str>) -> Result<(), InferError> {
        self.models.find(name, version)?;
        match self.reporter.state() {
            ReplicaState::Stopping => Err(InferError::NotReady(self.why_not_ready())),
            ReplicaState::Starting | ReplicaState::BackingOff | ReplicaState::Ready => Ok(()),
        }
    }

    /// Predicts, and answers under the name that was asked.
    pub(crate) async fn infer(
        &self,
        name: &str,
        model: &Model,
        request: Request,
        caller: Caller,
    ) -> Result<Response, InferError> {
        let id = request.id.clone();
        let outputs = model.infer(request, caller).await?;
        Ok(Response {
            model_name: name.to_owned(),
            model_version: Some(model.version.clone()),
            id,
            parameters: Default::default(),
            outputs,
        })
    }
}
