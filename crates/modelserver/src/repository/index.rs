//! The states of models, in the terms of the repository extension.

use std::fmt;

use serde::Serialize;

/// The state of one version of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum ModelState {
    /// It predicts.
    Ready,
    /// It is being loaded, and no model with that name and version predicts yet.
    Loading,
    /// It accepts no more requests, and finishes its current ones.
    Unloading,
    /// It is known and not served, for the given reason.
    Unavailable,
}

impl ModelState {
    /// The name in the protocol.
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
    /// The reason of the state; empty if the state needs none.
    pub(crate) reason: String,
}
