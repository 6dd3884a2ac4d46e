//! The repository of models: their states, and loading and unloading them while the server runs.
//!
//! A model is loaded next to the serving one with its name, and replaces it in one step when it predicts. The old one
//! answers its requests and is freed. A failure before that step changes nothing. Loads of one model run one after the
//! other; other models and all requests continue during a load. The work is a separate task: a client that disconnects
//! does not interrupt it.
//!
//! **Invariant:** no request is refused because a model is being replaced.

mod described;
mod index;
mod leaving;
mod origin;
pub(crate) mod registry;
pub(crate) mod report;
mod request;
mod start;
mod turns;

use std::sync::Arc;

use base::Tasks;
use tokio::sync::Semaphore;

pub(crate) use described::{ConfigTensor, DynamicBatching, InstanceGroup, ModelConfig, Text, VersionPolicy};
pub(crate) use index::{IndexEntry, ModelState};
pub(crate) use request::LoadRequest;

use crate::{
    Config, ServeError,
    error::InferError,
    load::Maker,
    metrics::Metrics,
    repository::{
        registry::{Held, Registry, Versions},
        report::Reporter,
    },
    run::model::Model,
    source::{FIRST_VERSION, Listed, ModelFile, declared::Declared},
};
use leaving::Leaving;
use origin::Origin;
use turns::Turns;

/// Maximum number of load and unload orders at one time, including waiting ones.
const MOST_ORDERS: usize = 64;
/// Maximum number of known models, so that requests with their own files cannot fill the memory with names.
const MOST_MODELS: usize = 10_000;

/// The state that the repository shares with the rest of the server.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) models: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) reporter: Arc<Reporter>,
}

/// Changes what is served.
#[derive(Debug)]
pub(crate) struct Repository {
    config: Arc<Config>,
    models: Arc<Registry>,
    metrics: Arc<Metrics>,
    reporter: Arc<Reporter>,
    tasks: Tasks,
    turns: Turns,
    leaving: Arc<Leaving>,
    orders: Arc<Semaphore>,
    open: bool,
}

/// The result of loading the versions of one model.
struct Loaded {
    models: Vec<Arc<Model>>,
    failed: Vec<(String, ServeError)>,
}

impl Repository {
    /// `local`: only this machine can reach the server.
    pub(crate) fn new(shared: Shared, tasks: Tasks, local: bool) -> Self {
        let Shared { config, models, metrics, reporter } = shared;
        // Loading can run code. So other machines may do it only if the settings allow it, and never in a replica,
        // whose models the control plane decides.
        let open = config.model_control.unwrap_or(local && config.replica_id.is_none());
        let (turns, leaving) = (Turns::default(), Arc::new(Leaving::default()));
        let orders = Arc::new(Semaphore::new(MOST_ORDERS));
        Self { config, models, metrics, reporter, tasks, turns, leaving, orders, open }
    }

    /// See [`crate::protocol::app::App::load`].
    pub(crate) async fn load(self: &Arc<Self>, name: &str, request: LoadRequest) -> Result<(), InferError> {
        let (this, own) = (Arc::clone(self), self.models.own_name(name));
        self.order(async move {
            let _turn = this.turns.of(&own).await;
            this.load_now(&own, request).await
        })
        .await
    }

    /// See [`crate::protocol::app::App::unload`].
    pub(crate) async fn unload(self: &Arc<Self>, name: &str) -> Result<(), InferError> {
        let (this, own) = (Arc::clone(self), self.models.own_name(name));
        self.order(async move {
            let _turn = this.turns.of(&own).await;
            if !this.models.knows(&own) {
                return Err(InferError::NotFound(format!("failed to unload '{own}': {}", this.models.unknown(&own))));
            }
            let taken = this.models.take(&own);
            tracing::info!(model = own, "unloaded");
            let models = Arc::clone(&this.models);
            match taken {
                Some(old) => this.retire(old, move || models.gone(&own)),
                None => models.gone(&own),
            }
            Ok(())
        })
        .await
    }

    /// Models that finish their requests, and then end.
    pub(crate) fn leaving(&self) -> Vec<Arc<Model>> {
        self.leaving.all()
    }

    /// Executes an order in a separate task, if orders are allowed now.
    async fn order(
        &self,
        work: impl Future<Output = Result<(), InferError>> + Send + 'static,
    ) -> Result<(), InferError> {
        if !self.open {
            return Err(InferError::Unsupported(
                "this server loads and unloads nothing on request, because others than this machine's users reach it, \
                 or because it is a replica: serve.model_control = true lets it"
                    .to_owned(),
            ));
        }
        if !self.models.is_complete() || self.tasks.is_stopping() {
            return Err(InferError::NotReady("the server is still loading its models, or ending".to_owned()));
        }
        let Ok(order) = Arc::clone(&self.orders).try_acquire_owned() else {
            return Err(InferError::NotReady(format!("{MOST_ORDERS} models are being loaded already: try again")));
        };
        let reporter = Arc::clone(&self.reporter);
        let work = self.tasks.spawn(async move {
            let _order = order;
            let result = work.await;
            reporter.models_changed();
            result
        });
        work.await.unwrap_or_else(|e| Err(InferError::Failed(format!("the load broke off: {e}"))))
    }

    async fn load_now(self: &Arc<Self>, name: &str, request: LoadRequest) -> Result<(), InferError> {
        let refused = |reason: String| format!("failed to load '{name}': {reason}");
        if !self.models.knows(name) && self.models.len() >= MOST_MODELS {
            return Err(InferError::Invalid(refused(format!("{MOST_MODELS} models are known already"))));
        }
        let origin = Origin::of(&self.config, request).await;
        let origin = origin.map_err(|error| self.not_loaded(name, Vec::new(), &error))?;
        let (this, own) = (Arc::clone(self), name.to_owned());
        let work = self.tasks.spawn_blocking(move || {
            let Some(listed) = origin.find(&this.config, &this.models, &own) else {
                let unknown = this.models.unknown(&own);
                return Err(InferError::NotFound(format!("failed to load '{own}': {unknown}")));
            };
            let listed = listed.map_err(|error| this.not_loaded(&own, Vec::new(), &error))?;
            this.models.begin(&own, listed.files.iter().map(version));
            let loaded = this.make(&listed, true);
            this.replace(&own, loaded, Arc::new(origin.held), listed.declared)
        });
        work.await.unwrap_or_else(|e| Err(InferError::Failed(refused(format!("it broke off: {e}")))))
    }

    /// Loads every version. `serving`: other models are being served. Blocks.
    fn make(&self, listed: &Listed, serving: bool) -> Loaded {
        let name = listed.name.as_str();
        listed.declared.tell(name);
        let maker = Maker { config: &self.config, metrics: &self.metrics, serving };
        let mut loaded = Loaded { models: Vec::with_capacity(listed.files.len()), failed: Vec::new() };
        for file in &listed.files {
            match maker.make(file, listed) {
                Ok(model) => loaded.models.push(model),
                Err(error) => {
                    self.metrics.of_model(name, version(file)).set_loaded(self.serves(name, version(file)));
                    loaded.failed.push((version(file).to_owned(), error));
                }
            }
        }
        loaded
    }

    /// Replaces the serving models with the loaded ones; all of them or, if something is serving, none.
    fn replace(
        self: &Arc<Self>,
        name: &str,
        loaded: Loaded,
        held: Arc<Held>,
        declared: Declared,
    ) -> Result<(), InferError> {
        let serving = self.models.find(name, None).is_ok();
        let reasons = |failed: &[(String, ServeError)]| -> Vec<_> {
            failed.iter().map(|(version, error)| (version.clone(), error.to_string())).collect()
        };
        let told = reasons(&loaded.failed);
        let first = loaded.failed.into_iter().next();
        match first {
            Some((_, error)) if serving || loaded.models.is_empty() => {
                // The loaded ones are discarded: their metrics belong to versions that are not served.
                for model in &loaded.models {
                    model.metrics.set_loaded(self.serves(name, &model.version));
                }
                Err(self.not_loaded(name, told, &error))
            }
            first => {
                let old = self.models.serve(name, Versions::new(loaded.models, held, declared), told, None);
                if let Some(old) = old {
                    self.retire(old, || ());
                }
                match first {
                    Some((version, error)) => Err(refusal(
                        &error,
                        format!("failed to load '{name}' version {version}: {error}; its other versions are loaded"),
                    )),
                    None => Ok(()),
                }
            }
        }
    }

    /// Records that a load failed, and returns the error.
    fn not_loaded(&self, name: &str, failed: Vec<(String, String)>, error: &ServeError) -> InferError {
        let serving = self.models.find(name, None).is_ok();
        if self.models.knows(name) {
            self.models.failed(name, failed, None);
        }
        let kept = if serving { "; the version loaded before keeps serving" } else { "" };
        tracing::warn!(model = name, %error, "not loaded{kept}");
        refusal(error, format!("failed to load '{name}': {error}{kept}"))
    }

    fn serves(&self, name: &str, version: &str) -> bool {
        self.models.find(name, Some(version)).is_ok()
    }

    /// Releases what was replaced after its last request was answered; `after` signals that.
    fn retire(&self, old: Arc<Versions>, after: impl FnOnce() + Send + 'static) {
        let leaving = Arc::clone(&self.leaving);
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = leaving.wait(old) => after(),
                () = tasks.stopping() => {}
            }
        });
    }
}

/// The protocol's error for a failed load.
fn refusal(error: &ServeError, words: String) -> InferError {
    if error.is_permanent() { InferError::Invalid(words) } else { InferError::Failed(words) }
}

fn version(file: &ModelFile) -> &str {
    file.version.as_deref().unwrap_or(FIRST_VERSION)
}
