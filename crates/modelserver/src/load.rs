//! From a recognised file to a model that predicts: loads it, warms it up, compares it with its golden examples.

pub(crate) mod fetch;
pub mod golden;
pub(crate) mod open;
pub(crate) mod warm;

use std::sync::Arc;

use crate::{
    Config, ServeError,
    load::{open::Opener, warm::warm},
    machine::placement::Placement,
    metrics::Metrics,
    mlflow::MlflowModel,
    run::{
        model::Model,
        probe::{Probe, is_probed, probe},
    },
    runtime::{MLFLOW, ModelRuntime, alarm::Alarm},
    settings::ModelSettings,
    source::{FIRST_VERSION, Kind, Listed, ModelFile},
};

fn no_thread(name: &str, source: std::io::Error) -> ServeError {
    ServeError::Io { what: format!("no thread for model `{name}`"), source }
}

/// The context in which a model is created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maker<'m> {
    pub(crate) config: &'m Config,
    pub(crate) metrics: &'m Metrics,
    /// Whether other models are being served, which would go down if this one crashes while it is loaded.
    pub(crate) serving: bool,
}

impl Maker<'_> {
    /// Loads and tries one version. Blocks; call it off the async threads.
    pub(crate) fn make(&self, file: &ModelFile, listed: &Listed) -> Result<Arc<Model>, ServeError> {
        let (name, declared) = (listed.name.as_str(), &listed.declared);
        let version = file.version.clone().unwrap_or_else(|| FIRST_VERSION.to_owned());
        let metrics = self.metrics.of_model(name, &version);
        let settings = declared.settings(self.config, name);
        let opener = Opener { config: self.config };
        let placement = Placement::of_this_machine();
        let mut runtimes: Vec<Box<dyn ModelRuntime>> = Vec::new();
        let mut tried = Probe::default();
        if self.serving
            && let Some(runtime) = opener.open_to_try(file, &settings)?
        {
            self.run_in(runtime, 0, file, listed, &settings)?;
        }
        for instance in 0..settings.instances {
            let runtime = placement.load(instance, || opener.open(file, &settings))?;
            let (runtime, found, golden_examples) = self.run_in(runtime, instance, file, listed, &settings)?;
            if instance == 0 {
                tried = found;
                tracing::info!(model = name, version, golden_examples, "the model predicts");
            }
            if let Some(own) = runtime.metrics() {
                self.metrics.of_its_own(name, &version, own);
            }
            runtimes.push(runtime);
        }
        let Some(mut signature) = runtimes.first().map(|runtime| declared.narrowed(runtime.signature())) else {
            return Err(ServeError::Broken(format!("model `{name}` has no instances")));
        };
        if file.kind == Kind::Mlflow && signature.platform != MLFLOW {
            signature.logged = MlflowModel::logged(&file.path)?;
        }
        let model = Model::start(name.to_owned(), version, signature, runtimes, tried, metrics, settings);
        Ok(Arc::new(model.map_err(|error| no_thread(name, error))?))
    }

    /// The runs at load time: the warm-up, and for the first instance the golden examples, which are counted, and the
    /// probe.
    fn run_in(
        &self,
        mut runtime: Box<dyn ModelRuntime>,
        instance: usize,
        file: &ModelFile,
        listed: &Listed,
        settings: &ModelSettings,
    ) -> Result<(Box<dyn ModelRuntime>, Probe, usize), ServeError> {
        let (name, declared, first) = (listed.name.as_str(), &listed.declared, instance == 0);
        if first {
            declared.check(runtime.signature())?;
        }
        declared.allow_absent(runtime.as_mut(), first);
        runtime = declared.reshaped(runtime);
        let alarm = Alarm::after(settings.timeout).map_err(|error| no_thread(name, error))?;
        let probed = first && settings.max_batch_size > 1 && is_probed(runtime.as_ref());
        let again = probed || first && file.golden().is_file();
        warm(runtime.as_mut(), file, declared, listed.folder.as_deref(), &alarm.cancel, again)?;
        let (mut tried, mut golden_examples) = (Probe::default(), 0);
        if first {
            let examples = golden::check(runtime.as_mut(), &file.golden())?;
            golden_examples = examples.len();
            if settings.max_batch_size > 1 {
                tried = probe(runtime.as_mut(), &examples, name, &alarm.cancel);
            }
        }
        Ok((runtime, tried, golden_examples))
    }
}
