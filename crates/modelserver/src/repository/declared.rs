//! What a model's `config.pbtxt` says.

use std::path::Path;

use crate::{ServeError, settings::Overrides, source::Kind};

/// What was said about one model, in its own folder or with the word to load it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Declared {
    /// What runs it.
    pub(crate) kind: Option<Kind>,
    /// The file of each version that is the model.
    pub(crate) default_model_filename: Option<String>,
    /// How it is run.
    pub(crate) overrides: Overrides,
}

impl Declared {
    /// Reads a file.
    pub(crate) fn read(_file: &Path) -> Result<Self, ServeError> {
        Ok(Self::default())
    }

    /// Reads the JSON that comes with the word to load.
    pub(crate) fn from_json(_text: &str) -> Result<Self, ServeError> {
        Ok(Self::default())
    }
}
