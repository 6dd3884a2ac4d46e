//! What every protocol needs: the models, the settings, the state. The protocols translate; the work is here.

use api::{
    inference::{Request, Response, ServerMetadata},
    replica::ReplicaState,
};

use crate::{
    Config, budget::Budget, caller::Caller, error::InferError, metrics::Metrics, model::Model, registry::Registry,
    report::Reporter,
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
    pub(crate) fn why_not_ready(&self) -> &'static str {
        match self.reporter.state() {
            ReplicaState::Starting | ReplicaState::BackingOff => "the server is still loading its models",
            ReplicaState::Ready => "",
            ReplicaState::Stopping => "the server is ending",
        }
    }

    pub(crate) fn metadata(&self) -> ServerMetadata {
        ServerMetadata {
            name: "modelway".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
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
