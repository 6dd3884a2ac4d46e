//! The configuration of one model from its `config.pbtxt` or from the load request: Triton's model configuration, as
//! far as it applies here.
//!
//! A Triton field that this server does not apply is logged once; an unknown field is an error. Nothing is loaded here.
//! error. Nothing is loaded here.

mod check;
pub(crate) mod read;
mod reshape;

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use inference::Datatype;

use super::{
    fields::{Fields, from_json},
    file::{FIRST_VERSION, Kind, ModelFile, compare},
    text::{self, Message, Wrong},
};
use crate::{
    Config, ServeError,
    settings::{ModelSettings, Overrides},
};

/// Memory of the response cache if a model enables it and `[serve]` sets no size.
const CACHE_BYTES: usize = 32 << 20;

/// The configuration of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Declared {
    /// Its file, for errors.
    place: String,
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<String>,
    /// Its runtime.
    pub(crate) kind: Option<Kind>,
    /// The model file of each version.
    pub(crate) default_model_filename: Option<String>,
    /// Maximum batch size; 0: the tensors of the model have no batch dimension.
    pub(crate) max_batch_size: Option<i64>,
    pub(crate) inputs: Vec<DeclaredTensor>,
    pub(crate) outputs: Vec<DeclaredTensor>,
    pub(crate) policy: Policy,
    pub(crate) warmups: Vec<Warmup>,
    pub(crate) response_cache: Option<bool>,
    pub(crate) parameters: BTreeMap<String, String>,
    /// Its settings.
    overrides: Overrides,
    /// It came with the load request, not with the files of the model.
    by_request: bool,
    /// Fields without effect here, with the reasons.
    notes: Vec<String>,
}

/// A declared input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeclaredTensor {
    name: String,
    datatype: Option<Datatype>,
    /// The shape in requests.
    dims: Vec<i64>,
    /// The shape of the model, if it is different.
    reshape: Option<Vec<i64>>,
    /// Requests may leave it out.
    optional: bool,
}

/// Which versions are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Every available version.
    #[default]
    All,
    /// This many of the newest versions.
    Latest(u32),
    /// These versions.
    Specific(Vec<i64>),
}

/// Requests to run before the model is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warmup {
    pub(crate) name: String,
    /// Rows; 0: the dimensions are those of the whole tensor.
    pub(crate) batch_size: i64,
    pub(crate) inputs: BTreeMap<String, WarmupInput>,
    /// The number of runs.
    pub(crate) count: u32,
}

/// One input of a warm-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WarmupInput {
    pub(crate) datatype: Datatype,
    pub(crate) dims: Vec<i64>,
    pub(crate) data: WarmupData,
}

/// The source of the data of a warm-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WarmupData {
    Zero,
    Random,
    /// A file in the folder `warmup` next to the versions, in the form of binary tensors.
    File(String),
}

impl Declared {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Io { what: format!("{} cannot be read", file.display()), source };
        let mut bytes = Vec::new();
        let limit = u64::try_from(text::MOST_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(failed)?;
        let place = file.display().to_string();
        let text = String::from_utf8(bytes)
            .map_err(|_| ServeError::ModelConfig { place: place.clone(), reason: "it is not UTF-8".to_owned() })?;
        Self::of(place, text::parse(&text))
    }

    /// Reads the JSON in a load request.
    pub(crate) fn from_json(text: &str) -> Result<Self, ServeError> {
        let place = "the parameter `config`".to_owned();
        match serde_json::from_str(text) {
            Ok(value) => Ok(Self { by_request: true, ..Self::of(place, from_json(&value))? }),
            Err(error) => Err(ServeError::ModelConfig { place, reason: format!("it is not JSON: {error}") }),
        }
    }

    fn of(place: String, message: Result<Message, Wrong>) -> Result<Self, ServeError> {
        let mut notes = Vec::new();
        let read = message.and_then(|message| Self::of_fields(Fields::of("", message, &mut notes)));
        match read {
            Ok(declared) => Ok(Self { place, notes, ..declared }),
            Err(wrong) => Err(ServeError::ModelConfig { place, reason: wrong.to_string() }),
        }
    }

    /// Logs the fields that are not applied.
    pub(crate) fn tell(&self, model: &str) {
        for note in &self.notes {
            tracing::warn!(model, "{}: {note}", self.place);
        }
    }

    /// The settings of the model with this name. The configured settings override a file; a load request overrides
    /// both.
    pub(crate) fn settings(&self, config: &Config, name: &str) -> ModelSettings {
        let of_all = ModelSettings::of_all(config);
        if self.by_request {
            self.over(of_all.configured(config, name))
        } else {
            self.over(of_all).configured(config, name)
        }
    }

    /// Its settings, applied to `settings`.
    fn over(&self, settings: ModelSettings) -> ModelSettings {
        let mut overrides = self.overrides.clone();
        match self.response_cache {
            Some(true) if settings.response_cache_bytes == 0 => overrides.response_cache_bytes = Some(CACHE_BYTES),
            Some(false) => overrides.response_cache_bytes = Some(0),
            Some(true) | None => {}
        }
        settings.with(&overrides)
    }

    /// The versions to serve.
    pub(crate) fn choose(&self, files: Vec<ModelFile>) -> Result<Vec<ModelFile>, ServeError> {
        let mut files = files;
        match &self.policy {
            Policy::All => {}
            Policy::Latest(count) => {
                files.sort_by(|a, b| compare(version(b), version(a)));
                files.truncate(usize::try_from(*count).unwrap_or(usize::MAX));
                files.reverse();
            }
            Policy::Specific(wanted) => {
                let is = |file: &ModelFile, number: &i64| version(file) == number.to_string();
                if let Some(missing) = wanted.iter().find(|number| !files.iter().any(|file| is(file, number))) {
                    let there: Vec<_> = files.iter().map(version).collect();
                    return Err(self.wrong(format!(
                        "`version_policy` names version {missing}, which is not there; there is {}",
                        there.join(", ")
                    )));
                }
                files.retain(|file| wanted.iter().any(|number| is(file, number)));
            }
        }
        Ok(files)
    }

    /// For a version that was selected by its folder: the version policy is ignored.
    pub(crate) fn of_named_version(mut self) -> Self {
        self.policy = Policy::All;
        self
    }

    /// Whether it belongs to the model that was found.
    pub(crate) fn check_name(&self, found: &str) -> Result<(), ServeError> {
        match &self.name {
            Some(name) if name != found => Err(self.wrong(format!(
                "`name` is {name:?} and the model's folder is {found:?}: make them the same, or leave `name` out"
            ))),
            _ => Ok(()),
        }
    }

    /// A fault in the configuration.
    pub(crate) fn wrong(&self, reason: String) -> ServeError {
        ServeError::ModelConfig { place: self.place.clone(), reason }
    }
}

fn version(file: &ModelFile) -> &str {
    file.version.as_deref().unwrap_or(FIRST_VERSION)
}

#[cfg(test)]
mod tests;
