//! What is said about one model in its own `config.pbtxt`, or with the word to load it: Triton's model
//! configuration, as far as it means something here.
//!
//! A field that Triton knows and this server does not follow is told once in the log; one that nobody knows is an
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

/// Memory for kept answers where a model wants them kept and `[serve]` says nothing of it.
const CACHE_BYTES: usize = 32 << 20;

/// What was said about one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Declared {
    /// The file it stands in, for messages.
    place: String,
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<String>,
    /// What runs it.
    pub(crate) kind: Option<Kind>,
    /// The file of each version that is the model.
    pub(crate) default_model_filename: Option<String>,
    /// Rows that may be run as one; 0: the model's tensors have no dimension of rows.
    pub(crate) max_batch_size: Option<i64>,
    pub(crate) inputs: Vec<DeclaredTensor>,
    pub(crate) outputs: Vec<DeclaredTensor>,
    pub(crate) policy: Policy,
    pub(crate) warmups: Vec<Warmup>,
    pub(crate) response_cache: Option<bool>,
    pub(crate) parameters: BTreeMap<String, String>,
    /// How it is run.
    overrides: Overrides,
    /// It came with the word to load the model, not with the model's files.
    by_request: bool,
    /// What changes nothing here, and why.
    notes: Vec<String>,
}

/// An input or output as it was described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeclaredTensor {
    name: String,
    datatype: Option<Datatype>,
    /// Of requests.
    dims: Vec<i64>,
    /// Of the model, where that is another.
    reshape: Option<Vec<i64>>,
    /// Requests may leave it out.
    optional: bool,
}

/// Which versions are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Every one that is there.
    #[default]
    All,
    /// So many of the newest.
    Latest(u32),
    /// These numbers.
    Specific(Vec<i64>),
}

/// Requests to run before the model is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warmup {
    pub(crate) name: String,
    /// Rows; 0: the dimensions are all of a tensor's.
    pub(crate) batch_size: i64,
    pub(crate) inputs: BTreeMap<String, WarmupInput>,
    /// How often.
    pub(crate) count: u32,
}

/// One input of a warm-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WarmupInput {
    pub(crate) datatype: Datatype,
    pub(crate) dims: Vec<i64>,
    pub(crate) data: WarmupData,
}

/// Where the data of a warm-up comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WarmupData {
    Zero,
    Random,
    /// A file in the folder `warmup` beside the versions, its bytes as binary tensors have them.
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

    /// Reads the JSON that comes with the word to load.
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

    /// Tells of what is not honoured.
    pub(crate) fn tell(&self, model: &str) {
        for note in &self.notes {
            tracing::warn!(model, "{}: {note}", self.place);
        }
    }

    /// How the model of this name is run. A file gives way to what the configuration says for the model; a request
    /// does not.
    pub(crate) fn settings(&self, config: &Config, name: &str) -> ModelSettings {
        let of_all = ModelSettings::of_all(config);
        if self.by_request {
            self.over(of_all.configured(config, name))
        } else {
            self.over(of_all).configured(config, name)
        }
    }

    /// What it says of how the model is run, above `settings`.
    fn over(&self, settings: ModelSettings) -> ModelSettings {
        let mut overrides = self.overrides.clone();
        match self.response_cache {
            Some(true) if settings.response_cache_bytes == 0 => overrides.response_cache_bytes = Some(CACHE_BYTES),
            Some(false) => overrides.response_cache_bytes = Some(0),
            Some(true) | None => {}
        }
        settings.with(&overrides)
    }

    /// The versions that are to be served.
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

    /// For a version that was named by its folder: which versions are served is no longer asked.
    pub(crate) fn of_named_version(mut self) -> Self {
        self.policy = Policy::All;
        self
    }

    /// Whether it is about the model that was found.
    pub(crate) fn check_name(&self, found: &str) -> Result<(), ServeError> {
        match &self.name {
            Some(name) if name != found => Err(self.wrong(format!(
                "`name` is {name:?} and the model's folder is {found:?}: make them the same, or leave `name` out"
            ))),
            _ => Ok(()),
        }
    }

    /// Something is wrong with what it says.
    pub(crate) fn wrong(&self, reason: String) -> ServeError {
        ServeError::ModelConfig { place: self.place.clone(), reason }
    }
}

fn version(file: &ModelFile) -> &str {
    file.version.as_deref().unwrap_or(FIRST_VERSION)
}

#[cfg(test)]
mod tests;
