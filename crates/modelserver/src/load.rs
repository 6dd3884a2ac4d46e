//! From a source to models that predict: fetch, recognise, load, warm, compare with the golden examples.

use std::{path::Path, sync::Arc};

use artifact::{Cache, Fetched};

use crate::{
    Config, ServeError,
    app::App,
    golden,
    model::Model,
    open::Opener,
    probe::{Probe, probe},
    registry::{Table, Versions},
    runtime::{Call, Cancel, Last, ModelRuntime},
    sample,
    settings::{ModelSettings, Overrides},
    source::{self, Found, ModelFile},
};

/// The version of a model whose source names none.
pub(crate) const FIRST_VERSION: &str = "1";

/// Brings the artefact here and looks what it is. Keep the [`Fetched`] as long as its files are used.
pub(crate) async fn fetch(config: &Config) -> Result<(Found, Fetched), ServeError> {
    let places = config.places();
    if places.is_empty() {
        return Err(ServeError::NoSource);
    }
    let artifact = |e: artifact::ArtifactError| ServeError::Artifact {
        code: e.code(),
        message: e.to_string(),
        retry: e.may_pass(),
    };
    let cache = Cache::open(config.cache.clone()).map_err(artifact)?;
    let fetched = cache.fetch(&places, config.digest.as_deref()).await.map_err(artifact)?;
    let found = source::find(&fetched.path)?;
    Ok((found, fetched))
}

/// The one model of a source that holds just one version of one.
pub(crate) fn only(found: Found) -> Result<ModelFile, ServeError> {
    let mut files = match found {
        Found::One(listed) => listed.files,
        Found::Many(many) => {
            let mut files = Vec::new();
            for candidate in many {
                files.extend(candidate.listed?.files);
            }
            files
        }
    };
    match (files.pop(), files.pop()) {
        (Some(file), None) => Ok(file),
        (Some(a), Some(b)) => Err(ServeError::Source(format!(
            "there is more than one model, {} and {}: name one of them",
            b.path.display(),
            a.path.display()
        ))),
        (None, _) => Err(ServeError::NoSource),
    }
}

/// Loads everything that the configuration names. Blocks; call it off the async threads.
pub(crate) fn load(app: &App, found: Found) -> Result<Table, ServeError> {
    let config = &app.config;
    let opener = Opener { config };
    let found = match found {
        // A repository with just one model can be served under the name that was asked for.
        Found::Many(mut many) if config.model_name.is_some() && many.len() == 1 => match many.pop() {
            Some(candidate) => Found::One(candidate.listed?),
            None => Found::Many(many),
        },
        found @ (Found::One(_) | Found::Many(_)) => found,
    };
    match found {
        Found::One(listed) => {
            let name = config.model_name.clone().unwrap_or(listed.name);
            let mut models = Vec::with_capacity(listed.files.len());
            for file in &source::of_version(listed.files, config.model_version.as_deref())? {
                models.push(start(app, &opener, file, &name, file.version.clone())?);
            }
            let versions = Arc::new(Versions::new(models));
            let names = config.alias.iter().cloned().chain([name]);
            Ok(names.map(|name| (name, Arc::clone(&versions))).collect())
        }
        Found::Many(many) => {
            if config.model_name.is_some() || !config.alias.is_empty() || config.model_version.is_some() {
                let names: Vec<_> = many.iter().map(|candidate| candidate.name.as_str()).collect();
                return Err(ServeError::Source(several(&names)));
            }
            let mut table = Table::new();
            for candidate in many {
                let mut models = Vec::new();
                for file in &candidate.listed?.files {
                    models.push(start(app, &opener, file, &candidate.name, file.version.clone())?);
                }
                table.insert(candidate.name, Arc::new(Versions::new(models)));
            }
            Ok(table)
        }
    }
}

/// Why a folder of many models cannot be served as one.
fn several(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = names.iter().copied().take(SHOWN).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!(
        "this is a folder of {} models ({}{more}), and one is wanted: name the folder of one of them, or serve all \
         under their own names with `modelway serve` alone",
        names.len(),
        shown.join(", ")
    )
}

fn start(
    app: &App,
    opener: &Opener<'_>,
    file: &ModelFile,
    name: &str,
    version: Option<String>,
) -> Result<Arc<Model>, ServeError> {
    let config = &app.config;
    let version = version.unwrap_or_else(|| FIRST_VERSION.to_owned());
    let metrics = app.metrics.of_model(name, &version);
    let settings = ModelSettings::of(config, name, &Overrides::default());
    let mut runtimes: Vec<Box<dyn ModelRuntime>> = Vec::new();
    let mut tried = Probe::default();
    for instance in 0..settings.instances {
        let mut runtime = opener.open(file, &settings)?;
        warm(runtime.as_mut(), &file.path);
        if instance == 0 {
            let examples = golden::check(runtime.as_mut(), &file.golden())?;
            if settings.max_batch_size > 1 {
                tried = probe(runtime.as_mut(), &examples, name);
            }
            tracing::info!(model = name, version, golden_examples = examples.len(), "the model predicts");
        }
        runtimes.push(runtime);
    }
    let model = Model::start(name.to_owned(), version, runtimes, tried, metrics, settings);
    let what = format!("no thread for model `{name}`");
    Ok(Arc::new(model.map_err(|source| ServeError::Io { what, source })?))
}

/// One run, so that the first request does not pay for what the runtime does only once. Made-up inputs may
/// lie outside of what a model accepts (an unknown word, an index out of range), so a failure is only told.
fn warm(runtime: &mut dyn ModelRuntime, file: &Path) {
    let inputs: Option<Vec<_>> = runtime.signature().inputs.iter().map(sample::ones).collect();
    let Some(inputs) = inputs else {
        tracing::info!(model = %file.display(), "not warmed: its inputs are too large to make up");
        return;
    };
    let outputs: Vec<usize> = (0..runtime.signature().outputs.len()).collect();
    let call = Call { inputs: &inputs, outputs: &outputs, parameters: &Default::default(), cancel: &Cancel::default() };
    if let Err(error) = runtime.infer(call, &mut Last::default()) {
        tracing::warn!(model = %file.display(), %error, "the model failed on made-up inputs, and may on real ones");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_many_models_is_refused_with_their_names() {
        let two = several(&["digits", "iris"]);
        assert!(two.contains("2 models (digits, iris), and one is wanted"), "{two}");
        let many: Vec<_> = (0..100).map(|n| format!("m{n:02}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(several(&many).contains("100 models (m00, m01, m02, m03, m04, …)"));
    }
}
