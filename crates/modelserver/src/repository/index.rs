//! How a model stands, in the words of the repository extension.

use std::fmt;

use serde::Serialize;

/// How one version of a model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum ModelState {
    /// It predicts.
    Ready,
    /// It is being loaded, and nothing of that name and version predicts yet.
    Loading,
    /// It takes no more requests, and finishes those that it has.
    Unloading,
    /// It is known and not served; the reason says why.
    Unavailable,
}

impl ModelState {
    /// The protocol's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            Self::Unloading => "UNLOADING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

impl fmt::Display for ModelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One line of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct IndexEntry {
    pub(crate) name: String,
    /// Empty if no version is known yet.
    pub(crate) version: String,
    pub(crate) state: ModelState,
    /// Why it stands so; empty where the state says all.
    pub(crate) reason: String,
}
