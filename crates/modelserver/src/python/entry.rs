//! What a worker is told to open.

use std::path::{Path, PathBuf};

use super::variables::Uses;

/// What a worker opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// How it is opened.
    pub(crate) kind: EntryKind,
    /// The file or folder.
    pub(crate) path: PathBuf,
    /// What its owner knows it by.
    pub(crate) known_as: PathBuf,
    /// Whose credentials it may need.
    pub(crate) uses: Uses,
}

/// How a model is opened: the words of the package's `open_model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A file or folder with a model class.
    Class,
    /// A folder with an `MLmodel` file.
    Mlflow,
}

impl Entry {
    /// The folder that the model finds itself in.
    pub(super) fn folder(&self) -> Option<&Path> {
        if self.path.is_dir() { Some(&self.path) } else { self.path.parent() }
    }
}

impl EntryKind {
    /// Its word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Class => "class",
            Self::Mlflow => "mlflow",
        }
    }
}
