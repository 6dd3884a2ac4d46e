//! The state and the operations that all protocols share. The protocols only translate.

use std::sync::Arc;

use api::replica::ReplicaState;
use base::{Tasks, guard};
use http::{HeaderMap, Uri};
use inference::{Request, Response, ServerMetadata};

use crate::{
    Config,
    error::InferError,
    metrics::Metrics,
    protocol::budget::Budget,
    repository::{IndexEntry, LoadRequest, ModelConfig, Repository, Shared},
    repository::{registry::Registry, report::Reporter},
    run::{caller::Caller, model::Model},
};

/// The supported protocol extensions, with Triton's names.
const EXTENSIONS: [&str; 7] = [
    "binary_tensor_data",
    "generate",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

/// Who can reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Programs of this machine that may open its socket.
    Socket,
    /// This machine: its programs, and through its browser any web page.
    Loopback,
    /// Other machines too.
    Network,
}

/// The server.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Arc<Config>,
    pub(crate) models: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) repository: Arc<Repository>,
    pub(crate) budget: Budget,
    reach: Reach,
}

impl App {
    pub(crate) fn new(config: Config, reach: Reach, tasks: Tasks) -> Self {
        let metrics = Metrics::new();
        if let Some(name) = &config.model_name {
            // Its metrics exist, at 0, while it is being loaded.
            let version = config.model_version.as_deref().unwrap_or(crate::source::FIRST_VERSION);
            metrics.of_model(name, version).set_loaded(false);
        }
        let reporter = Arc::new(Reporter::new(config.replica_id.clone()));
        let budget = Budget::new(config.bodies_limit_bytes);
        let (config, models, metrics) = (Arc::new(config), Arc::new(Registry::default()), Arc::new(metrics));
        let shared = Shared {
            config: Arc::clone(&config),
            models: Arc::clone(&models),
            metrics: Arc::clone(&metrics),
            reporter: Arc::clone(&reporter),
        };
        let repository = Arc::new(Repository::new(shared, tasks, reach != Reach::Network));
        Self { config, models, metrics, reporter, repository, budget, reach }
    }

    /// Refuses requests from web pages of other sites. On loopback every request is checked. If other machines can
    /// reach the server, requests that change something (`changes`) are checked, and every request if the settings
    /// contain host names. No browser can reach a Unix socket.
    pub(crate) fn admit(&self, headers: &HeaderMap, uri: &Uri, changes: bool) -> Result<(), guard::Refusal> {
        let allowed = &self.config.allowed_hosts;
        let looks = match self.reach {
            Reach::Socket => false,
            Reach::Loopback => true,
            Reach::Network => changes || !allowed.is_empty(),
        };
        if !looks {
            return Ok(());
        }
        guard::check(headers, uri.authority().map(http::uri::Authority::as_str), allowed)
    }

    /// Whether the server accepts requests: every model that should predict does, and the server is not shutting down.
    pub(crate) fn is_ready(&self) -> bool {
        self.reporter.state() == ReplicaState::Ready && self.not_served().is_none()
    }

    /// Why not all models predict, or that nothing is served, as text.
    fn not_served(&self) -> Option<String> {
        if let Some(fault) = self.models.fault() {
            return Some(fault);
        }
        let models = self.models.all();
        if models.is_empty() {
            return Some("no model is loaded".to_owned());
        }
        models.iter().find(|model| !model.is_up()).map(|model| restarting(&model.name))
    }

    /// Why not, as text.
    pub(crate) fn why_not_ready(&self) -> String {
        match self.reporter.state() {
            ReplicaState::Starting | ReplicaState::BackingOff => "the server is still loading its models".to_owned(),
            ReplicaState::Ready => self.not_served().unwrap_or_default(),
            ReplicaState::Stopping => "the server is ending".to_owned(),
        }
    }

    pub(crate) fn metadata(&self) -> ServerMetadata {
        ServerMetadata {
            name: self.config.server_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }
    }

    /// Every known version and its state; with `ready_only`, only those that predict.
    pub(crate) fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        self.models.index(ready_only)
    }

    /// Loads a model, or reloads it next to the serving one, which then gets no more requests. Returns when the new one
    /// predicts; if it cannot be loaded, the old one continues.
    pub(crate) async fn load(&self, name: &str, request: LoadRequest) -> Result<(), InferError> {
        self.repository.load(name, request).await
    }

    /// Unloads a model; its waiting requests are still answered. Returns when it gets no more requests.
    /// `unload_dependents` has no effect, because no model depends on another.
    pub(crate) async fn unload(&self, name: &str, unload_dependents: bool) -> Result<(), InferError> {
        let _ = unload_dependents;
        self.repository.unload(name).await
    }

    /// The effective configuration of a model, with the name from the request.
    pub(crate) fn model_config(&self, name: &str, version: Option<&str>) -> Result<ModelConfig, InferError> {
        let (model, versions) = self.models.described(name, version)?;
        Ok(ModelConfig::of(name, &model, versions.declared()))
    }

    /// Whether one model predicts; otherwise an error with the reason.
    pub(crate) fn model_ready(&self, name: &str, version: Option<&str>) -> Result<(), InferError> {
        let (model, _) = self.models.find(name, version)?;
        if !model.is_up() {
            return Err(InferError::NotReady(restarting(name)));
        }
        match self.reporter.state() {
            ReplicaState::Stopping => Err(InferError::NotReady(self.why_not_ready())),
            ReplicaState::Starting | ReplicaState::BackingOff | ReplicaState::Ready => Ok(()),
        }
    }

    /// Predicts, and answers with the name from the request.
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

fn restarting(name: &str) -> String {
    format!("model `{name}` cannot be asked: its workers have ended and are being restarted")
}
