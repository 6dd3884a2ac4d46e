//! A file or folder that is one version of a model.

use std::{cmp::Ordering, path::PathBuf};

/// The file beside a model's versions that says how to serve it.
pub(crate) const CONFIG_FILE: &str = "config.pbtxt";

/// The version of a model whose source names none.
pub(crate) const FIRST_VERSION: &str = "1";

/// One file to load, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelFile {
    /// The model's name, if the source says one.
    pub(crate) name: String,
    /// Its version, if the source says one.
    pub(crate) version: Option<String>,
    /// What it is.
    pub(crate) kind: Kind,
    /// The file or folder of that kind.
    pub(crate) path: PathBuf,
}

/// The kinds of models that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An ONNX file.
    Onnx,
    /// A Python file with a model class.
    Python,
    /// A folder with an `MLmodel` file.
    Mlflow,
}

impl ModelFile {
    /// Where its golden examples are, if it has any.
    pub(crate) fn golden(&self) -> PathBuf {
        match self.kind {
            Kind::Onnx | Kind::Python => self.path.with_file_name("golden.json"),
            Kind::Mlflow => self.path.join("golden.json"),
        }
    }
}

/// Numbers as numbers, part by part, and before them what is no number.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    fn number(version: &str) -> Option<Vec<u64>> {
        version.strip_prefix('v').unwrap_or(version).split('.').map(|part| part.parse().ok()).collect()
    }
    match (number(a), number(b)) {
        (Some(x), Some(y)) => x.cmp(&y),
        (x, y) => x.is_some().cmp(&y.is_some()).then_with(|| a.cmp(b)),
    }
}
