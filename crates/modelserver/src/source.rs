//! Recognises what a file or folder holds: one model, versions of one, or many.
//!
//! The answer comes from what is there, never from the folder's own name. Two readings of one folder are an
//! error that names both, because a guess would serve the wrong model in silence.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::error::ServeError;

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
}

impl ModelFile {
    /// Where its golden examples are, if it has any.
    pub(crate) fn golden(&self) -> PathBuf {
        self.path.with_file_name("golden.json")
    }
}

/// What a source holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// One model, in one or more versions.
    One(Vec<ModelFile>),
    /// A repository of models, each in one or more versions.
    Many(Vec<ModelFile>),
}

/// Looks at `path`.
pub(crate) fn find(path: &Path) -> Result<Found, ServeError> {
    let metadata = fs::metadata(path)
        .map_err(|source| ServeError::Io { what: format!("{} cannot be read", path.display()), source })?;
    if metadata.is_file() {
        return if is_onnx(path) {
            Ok(Found::One(vec![ModelFile {
                name: name_of(path),
                version: None,
                kind: Kind::Onnx,
                path: path.to_owned(),
            }]))
        } else {
            Err(ServeError::Source(format!("{} is not an ONNX file: its name does not end in .onnx", path.display())))
        };
    }
    let folder = Folder::read(path)?;
    let single = folder.model()?;
    let versions = folder.versions()?;
    let many = folder.many()?;
    let mut readings = Vec::new();
    if let Some(file) = &single {
        readings.push(format!("a model ({})", file.display()));
    }
    if let Some(first) = versions.first() {
        readings.push(format!("versions of a model ({})", first.path.display()));
    }
    if let Some(first) = many.first() {
        readings.push(format!("a folder of models ({})", first.path.display()));
    }
    if readings.len() > 1 {
        let readings = readings.join(" and ");
        return Err(ServeError::Source(format!("{} holds {readings}: name the one to serve", path.display())));
    }
    match single {
        Some(file) => {
            Ok(Found::One(vec![ModelFile { name: name_of(path), version: None, kind: Kind::Onnx, path: file }]))
        }
        None if !versions.is_empty() => Ok(Found::One(versions)),
        None if !many.is_empty() => Ok(Found::Many(many)),
        None => Err(folder.nothing()),
    }
}

/// What is to be served of one model when a version was asked for: that one of several; and one alone is what the
/// caller says that it is, because its folder cannot know what others call it.
pub(crate) fn of_version(mut files: Vec<ModelFile>, asked: Option<&str>) -> Result<Vec<ModelFile>, ServeError> {
    let Some(asked) = asked else { return Ok(files) };
    if let [file] = files.as_mut_slice() {
        file.version = Some(asked.to_owned());
        return Ok(files);
    }
    let there: Vec<_> = files.iter().filter_map(|file| file.version.clone()).collect();
    files.retain(|file| file.version.as_deref() == Some(asked));
    if files.is_empty() {
        let there = there.join(", ");
        return Err(ServeError::Source(format!(
            "there is no version `{asked}` of this model, only {there}: name one of them"
        )));
    }
    Ok(files)
}

/// One folder's entries, by kind.
struct Folder {
    path: PathBuf,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Folder {
    fn read(path: &Path) -> Result<Self, ServeError> {
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

    /// The one ONNX file in this folder itself.
    fn model(&self) -> Result<Option<PathBuf>, ServeError> {
        let mut onnx = self.files.iter().filter(|file| is_onnx(file));
        match (onnx.next(), onnx.next()) {
            (Some(first), Some(second)) => Err(ServeError::Source(format!(
                "{} holds more than one model, {} and {}: name the one to serve",
                self.path.display(),
                name_with_end(first),
                name_with_end(second)
            ))),
            (first, _) => Ok(first.cloned()),
        }
    }

    /// Its folders that are versions: `1/model.onnx`, `v2/model.onnx`.
    fn versions(&self) -> Result<Vec<ModelFile>, ServeError> {
        let mut found = Vec::new();
        for folder in self.folders.iter().filter(|folder| is_version(&name_with_end(folder))) {
            if let Some(file) = Self::read(folder)?.model()? {
                let version = Some(name_with_end(folder));
                found.push(ModelFile { name: name_of(&self.path), version, kind: Kind::Onnx, path: file });
            }
        }
        Ok(found)
    }

    /// Its folders that hold versions: `iris/1/model.onnx`.
    fn many(&self) -> Result<Vec<ModelFile>, ServeError> {
        let mut found = Vec::new();
        for folder in self.folders.iter().filter(|folder| !is_version(&name_with_end(folder))) {
            found.extend(Self::read(folder)?.versions()?);
        }
        Ok(found)
    }

    fn nothing(&self) -> ServeError {
        let known = "an *.onnx file, <version>/model.onnx or <name>/<version>/model.onnx";
        let place = self.path.display();
        let names: Vec<_> = self.files.iter().chain(&self.folders).take(8).map(|path| name_with_end(path)).collect();
        if names.iter().any(|name| name == "MLmodel") {
            return ServeError::Source(format!(
                "{place} is an MLflow model, which cannot be served yet: export it to ONNX, so that there is {known}"
            ));
        }
        let seen = if names.is_empty() { "it is empty".to_owned() } else { format!("it holds {}", names.join(", ")) };
        ServeError::Source(format!("{place} holds no model: expected {known}; {seen}"))
    }
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("onnx"))
}

/// `1`, `v1`, `1.2.0`.
fn is_version(name: &str) -> bool {
    let digits = name.strip_prefix('v').unwrap_or(name);
    digits.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn name_with_end(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// What to call the model at `path`: its file's or folder's name, or that of the folder around it if that is
/// just `model.onnx` or a version.
fn name_of(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let names = absolute.ancestors().filter_map(|part| {
        let name = name_with_end(part);
        let name = if is_onnx(part) { name[..name.len() - ".onnx".len()].to_owned() } else { name };
        part.file_name().is_some().then_some(name)
    });
    names.into_iter().find(|name| name != "model" && !is_version(name)).unwrap_or_else(|| "model".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with empty files at these paths.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, b"").unwrap();
        }
        root
    }

    fn versions(files: &[ModelFile]) -> Vec<(&str, Option<&str>)> {
        files.iter().map(|file| (file.name.as_str(), file.version.as_deref())).collect()
    }

    #[test]
    fn a_source_is_recognised_by_what_is_in_it() {
        let root =
            folder(&["iris/model.onnx", "iris/golden.json", "lone/net.onnx", "two/1/model.onnx", "two/10/model.onnx"]);
        let Found::One(one) = find(&root.path().join("iris")).unwrap() else { panic!() };
        assert_eq!(versions(&one), [("iris", None)]);
        assert!(one[0].golden().is_file());
        let Found::One(one) = find(&root.path().join("lone/net.onnx")).unwrap() else { panic!() };
        assert_eq!(versions(&one), [("net", None)]);
        let Found::One(two) = find(&root.path().join("two")).unwrap() else { panic!() };
        assert_eq!(versions(&two), [("two", Some("1")), ("two", Some("10"))]);
        let Found::One(two) = find(&root.path().join("two/10")).unwrap() else { panic!() };
        assert_eq!(versions(&two), [("two", None)]);
    }

    #[test]
    fn a_folder_of_many_models_names_each() {
        let root = folder(&["iris/1/model.onnx", "digits/1/model.onnx", "digits/2/model.onnx", "README.md"]);
        let Found::Many(many) = find(root.path()).unwrap() else { panic!() };
        assert_eq!(versions(&many), [("digits", Some("1")), ("digits", Some("2")), ("iris", Some("1"))]);
    }

    #[test]
    fn a_version_that_is_asked_for_is_served_alone() {
        let root = folder(&["two/1/model.onnx", "two/10/model.onnx", "one/1/model.onnx"]);
        let of = |source: &str, asked: Option<&str>| {
            let Found::One(files) = find(&root.path().join(source)).unwrap() else { panic!() };
            of_version(files, asked)
                .map(|files| files.into_iter().map(|file| file.version.unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(of("two", None).unwrap(), ["1", "10"]);
        assert_eq!(of("two", Some("10")).unwrap(), ["10"]);
        assert_eq!(of("one", Some("v1")).unwrap(), ["v1"]);
        let said = of("two", Some("v1")).unwrap_err().to_string();
        assert_eq!(said, "there is no version `v1` of this model, only 1, 10: name one of them");
    }

    #[test]
    fn two_readings_of_one_folder_are_an_error_that_names_both() {
        let said = |files: &[&str]| find(folder(files).path()).unwrap_err().to_string();
        let both = said(&["a.onnx", "b.onnx"]);
        assert!(both.contains("a.onnx and b.onnx"), "{both}");
        let both = said(&["model.onnx", "1/model.onnx"]);
        assert!(both.contains("a model (") && both.contains("versions of a model ("), "{both}");
        let both = said(&["1/model.onnx", "iris/1/model.onnx"]);
        assert!(both.contains("a folder of models ("), "{both}");
    }

    #[test]
    fn a_folder_without_a_model_says_what_was_looked_for_and_what_is_there() {
        let said = find(folder(&["weights.bin"]).path()).unwrap_err().to_string();
        assert!(said.contains("<version>/model.onnx") && said.contains("weights.bin"), "{said}");
        let said = find(folder(&["MLmodel"]).path()).unwrap_err().to_string();
        assert!(said.contains("MLflow"), "{said}");
        let said = find(&folder(&["model.pkl"]).path().join("model.pkl")).unwrap_err().to_string();
        assert!(said.contains("not an ONNX file"), "{said}");
    }
}
