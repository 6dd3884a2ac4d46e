//! The entries of one folder, and the models among them.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    declared::Declared,
    file::{CONFIG_FILE, Kind, ModelFile},
};
use crate::error::ServeError;

/// The kind of a file.
pub(super) const KNOWN_FILES: &str =
    "expected an *.onnx file or a *.py file with a class that derives from AbstractModel";
/// What the folder of one model in a repository may contain.
pub(super) const KNOWN_VERSIONS: &str =
    "<version>/model.onnx, <version>/model.py or <version>/MLmodel, where <version> is a number";

/// The file that makes a folder an MLflow model.
const MLFLOW: &str = "MLmodel";
/// The file of a Python model in a folder.
const PYTHON: &str = "model.py";
/// How much of a Python file is searched for its model class.
const SEARCHED: u64 = 1 << 20;

/// What the configuration says about which file of a folder is the model.
#[derive(Debug, Default)]
pub(super) struct Hints {
    kind: Option<Kind>,
    file: Option<String>,
}

impl Hints {
    pub(super) fn of(declared: &Declared) -> Self {
        Self { kind: declared.kind, file: declared.default_model_filename.clone() }
    }
}

/// One folder's entries, by kind, sorted.
pub(super) struct Folder {
    path: PathBuf,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Folder {
    pub(super) fn read(path: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Io { what: format!("{} cannot be read", path.display()), source };
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?.path();
            let hidden = entry.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            match (hidden, entry.is_dir()) {
                (true, _) => {}
                (false, true) => folders.push(entry),
                (false, false) => files.push(entry),
            }
        }
        files.sort();
        folders.sort();
        Ok(Self { path: path.to_owned(), files, folders })
    }

    /// Its `config.pbtxt`.
    pub(super) fn config(&self) -> Option<&Path> {
        self.files.iter().find(|file| name_with_end(file) == CONFIG_FILE).map(PathBuf::as_path)
    }

    /// The single model in this folder itself.
    pub(super) fn model(&self, hints: &Hints) -> Result<Option<(Kind, PathBuf)>, ServeError> {
        if let Some(name) = &hints.file {
            let named = self.files.iter().chain(&self.folders).find(|file| name_with_end(file) == *name);
            let Some(named) = named else { return Ok(None) };
            let kind = if named.is_dir() { None } else { kind_of_name(named) };
            return match hints.kind.or(kind) {
                Some(kind) => Ok(Some((kind, named.clone()))),
                None => Err(ServeError::Source(format!("{} is no model: {KNOWN_FILES}", named.display()))),
            };
        }
        let wanted = |kind: Kind| hints.kind.is_none_or(|hint| hint == kind);
        // Files next to this file are part of the model that it describes.
        if wanted(Kind::Mlflow) && self.files.iter().any(|file| name_with_end(file) == MLFLOW) {
            return Ok(Some((Kind::Mlflow, self.path.clone())));
        }
        let mut found = Vec::new();
        if wanted(Kind::Onnx) {
            found.extend(self.files.iter().filter(|file| is_onnx(file)).map(|file| (Kind::Onnx, file.clone())));
        }
        if wanted(Kind::Python) {
            found.extend(self.python(found.is_empty())?.map(|file| (Kind::Python, file)));
        }
        match found.as_slice() {
            [(_, first), (_, second), ..] => Err(ServeError::Source(format!(
                "{} holds more than one model, {} and {}: name the one to serve",
                self.path.display(),
                name_with_end(first),
                name_with_end(second)
            ))),
            _ => Ok(found.pop()),
        }
    }

    /// The Python file with the model class. A `model.py` that is `alone` is accepted even without one, so that opening
    /// it reports what is missing.
    fn python(&self, alone: bool) -> Result<Option<PathBuf>, ServeError> {
        let mut classes = Vec::new();
        for file in self.files.iter().filter(|file| is_python(file)) {
            match (class_in(file)?, name_with_end(file) == PYTHON) {
                (Class::Ours, true) => return Ok(Some(file.clone())),
                (Class::Ours, false) => classes.push(file),
                (Class::Triton, true) if alone => {
                    return Err(ServeError::Source(format!(
                        "{} is written for Triton's Python backend (TritonPythonModel), which is only to be had inside \
                         Triton: derive the class from modelway.AbstractModel",
                        file.display()
                    )));
                }
                (Class::None, true) if alone => return Ok(Some(file.clone())),
                (Class::Triton | Class::None, _) => {}
            }
        }
        match classes.as_slice() {
            [first, second, ..] => Err(ServeError::Source(format!(
                "{} holds more than one model, {} and {}: name the one to serve",
                self.path.display(),
                name_with_end(first),
                name_with_end(second)
            ))),
            classes => Ok(classes.first().map(|file| (*file).clone())),
        }
    }

    /// Its folders that are versions: `1/model.onnx`, `v2/model.py`.
    pub(super) fn versions(&self, name: &str, hints: &Hints) -> Result<Vec<ModelFile>, ServeError> {
        let mut found = Vec::new();
        for folder in self.folders.iter().filter(|folder| is_version(&name_with_end(folder))) {
            if let Some((kind, path)) = Self::read(folder)?.model(hints)? {
                let version = Some(name_with_end(folder));
                found.push(ModelFile { name: name.to_owned(), version, kind, path });
            }
        }
        Ok(found)
    }

    /// Whether a folder in it has the name of a version, whatever it contains.
    pub(super) fn has_versions(&self) -> bool {
        self.folders.iter().any(|folder| is_version(&name_with_end(folder)))
    }

    /// Its folders that may be models with versions: `iris/1/model.onnx`.
    pub(super) fn below(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().filter(|folder| !is_version(&name_with_end(folder))).cloned()
    }

    /// One model in a folder of many.
    pub(super) fn first_of_many(&self) -> Option<PathBuf> {
        let first = |folder: PathBuf| {
            let versions = Self::read(&folder).ok()?.versions("", &Hints::default()).ok()?;
            versions.into_iter().next().map(|file| file.path)
        };
        self.below().find_map(first)
    }

    pub(super) fn nothing(&self) -> ServeError {
        let place = self.path.display();
        let names: Vec<_> = self.files.iter().chain(&self.folders).take(8).map(|path| name_with_end(path)).collect();
        let seen = if names.is_empty() { "it is empty".to_owned() } else { format!("it holds {}", names.join(", ")) };
        ServeError::Source(format!(
            "{place} holds no model: expected an *.onnx file, a model.py, an MLmodel, or these below <version> or \
             <name>/<version>; {seen}"
        ))
    }
}

/// The advice for a file that contains a trained model but does not say how to call it.
pub(super) fn advice(path: &Path) -> &'static str {
    match path.extension().and_then(|end| end.to_str()).unwrap_or_default() {
        "pkl" | "pickle" | "joblib" | "pt" | "pth" | "bin" | "ubj" | "json" | "h5" | "keras" | "safetensors" => {
            "; write a class whose load() reads this one, or log the model with MLflow and serve that"
        }
        _ => "",
    }
}

/// The kind of a model file, if it is one.
pub(super) fn kind_of_file(path: &Path) -> Result<Option<Kind>, ServeError> {
    match kind_of_name(path) {
        Some(Kind::Python) if class_in(path)? != Class::Ours => Ok(None),
        kind => Ok(kind),
    }
}

/// The kind of a file by its suffix.
fn kind_of_name(path: &Path) -> Option<Kind> {
    match (is_onnx(path), is_python(path)) {
        (true, _) => Some(Kind::Onnx),
        (_, true) => Some(Kind::Python),
        (false, false) => None,
    }
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("onnx"))
}

fn is_python(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "py")
}

/// Whose model class a Python file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Ours,
    Triton,
    None,
}

/// Searches for a line that begins a model class: the file is not executed to find its kind.
fn class_in(path: &Path) -> Result<Class, ServeError> {
    let failed = |source| ServeError::Io { what: format!("{} cannot be read", path.display()), source };
    let mut text = Vec::new();
    fs::File::open(path).and_then(|file| file.take(SEARCHED).read_to_end(&mut text)).map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    let mut classes = text.lines().filter(|line| line.starts_with("class "));
    if classes.clone().any(|line| line.contains("AbstractModel")) {
        return Ok(Class::Ours);
    }
    Ok(if classes.any(|line| line.contains("TritonPythonModel")) { Class::Triton } else { Class::None })
}

/// `1`, `v1`, `1.2.0`.
pub(super) fn is_version(name: &str) -> bool {
    let digits = name.strip_prefix('v').unwrap_or(name);
    digits.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

pub(super) fn name_with_end(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
