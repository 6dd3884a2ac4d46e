//! Python models, each instance in a worker process of its own.
//!
//! The server starts the worker in the interpreter that the model names, hands it requests, and watches it: one
//! that dies, hangs, leaks or sends nonsense is replaced, and costs the requests that it had.
//!
//! **Invariants:** a worker never outlives the server. Nothing that it sends is believed before it is checked.
//! Nothing is pickled.

pub(crate) mod environment;

use std::path::PathBuf;

use crate::{
    ServeError,
    python::environment::Interpreter,
    runtime::{Call, ModelRuntime, RuntimeError, Signature, Sink},
    settings::ModelSettings,
};

/// What a worker opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// How it is opened.
    pub(crate) kind: EntryKind,
    /// The file or folder.
    pub(crate) path: PathBuf,
}

/// How a model is opened: the words of the package's `open_model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A file or folder with a model class.
    Class,
    /// A folder with an `MLmodel` file.
    Mlflow,
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

/// One instance of a Python model.
#[derive(Debug)]
pub(crate) struct PythonModel {
    signature: Signature,
}

impl PythonModel {
    /// Starts a worker and waits until it has loaded the model. Blocks.
    ///
    /// # Errors
    /// [`ServeError::Python`] says why there is no model, with Python's traceback where there is one.
    pub(crate) fn open(
        entry: &Entry,
        _interpreter: &Interpreter,
        _settings: &ModelSettings,
    ) -> Result<Self, ServeError> {
        let reason = format!("no worker opens a {} yet", entry.kind.name());
        Err(ServeError::Python { path: entry.path.clone(), reason })
    }
}

impl ModelRuntime for PythonModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn infer(&mut self, _call: Call<'_>, _sink: &mut dyn Sink) -> Result<(), RuntimeError> {
        Err(RuntimeError::Unavailable("the model's worker is being restarted".to_owned()))
    }
}
