//! Recognises the content of a file or folder: one model, versions of one, or many models.
//!
//! The result depends on the content, never on the name of the folder. If a folder can be read in two ways, the error
//! names both, because a guess could silently serve the wrong model. In a folder of many models, such an error affects
//! only that model, and the others are served.

pub(crate) mod declared;
mod fields;
mod file;
mod folder;
mod text;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) use file::{CONFIG_FILE, FIRST_VERSION, Kind, ModelFile, compare};

use self::{
    declared::Declared,
    folder::{Folder, Hints},
};
use crate::{Config, error::ServeError};

/// One model in the source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: String,
    /// Its versions, at least one.
    pub(crate) files: Vec<ModelFile>,
    /// The content of its `config.pbtxt`.
    pub(crate) declared: Declared,
    /// The folder of its `config.pbtxt`, if it has its own.
    pub(crate) folder: Option<PathBuf>,
}

impl Listed {
    /// The single model with the name and version from the configuration.
    pub(crate) fn configured(mut self, config: &Config) -> Result<Self, ServeError> {
        // An explicit value overrides that of the file, which overrides the name of the folder.
        let own = config.model_name.as_ref().or(self.declared.name.as_ref());
        self.name = own.unwrap_or(&self.name).clone();
        self.files = match config.model_version.as_deref() {
            None => self.declared.choose(self.files)?,
            asked => of_version(self.files, asked)?,
        };
        self.check_names()?;
        Ok(self)
    }

    /// The versions that its `config.pbtxt` selects, if it belongs to this model.
    pub(crate) fn chosen(mut self) -> Result<Self, ServeError> {
        self.declared.check_name(&self.name)?;
        self.files = self.declared.choose(self.files)?;
        self.check_names()?;
        Ok(self)
    }

    fn check_names(&self) -> Result<(), ServeError> {
        check_name("model", &self.name)?;
        self.files.iter().filter_map(|file| file.version.as_deref()).try_for_each(|name| check_name("version", name))
    }
}

/// Refuses a name that no request could contain.
pub(crate) fn check_name(of: &str, name: &str) -> Result<(), ServeError> {
    if api::path::is_reachable(name) {
        return Ok(());
    }
    Err(ServeError::Source(format!(
        "`{}` cannot be the name of a {of}: no path of a request holds it; choose another one (--model-name, --alias, \
         --model-version, or `name` in config.pbtxt)",
        name.escape_debug()
    )))
}

/// One model in a folder of many, or why it cannot be served.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The name of its folder.
    pub(crate) name: String,
    /// The content of the folder.
    pub(crate) listed: Result<Listed, ServeError>,
}

/// The content of a source.
#[derive(Debug)]
pub(crate) enum Found {
    /// One model, in one or more versions.
    One(Box<Listed>),
    /// A repository of models, each in one or more versions.
    Many(Vec<Candidate>),
}

/// Looks at `path`.
pub(crate) fn find(path: &Path) -> Result<Found, ServeError> {
    let metadata = fs::metadata(path)
        .map_err(|source| ServeError::Io { what: format!("{} cannot be read", path.display()), source })?;
    if metadata.is_file() {
        let Some(kind) = folder::kind_of_file(path)? else {
            let (known, advice) = (folder::KNOWN_FILES, folder::advice(path));
            return Err(ServeError::Source(format!("{} is no model: {known}{advice}", path.display())));
        };
        let name = name_of(path);
        let files = vec![ModelFile { name: name.clone(), version: None, kind, path: path.to_owned() }];
        let beside = path.ancestors().skip(1).take(2).map(|folder| folder.join(CONFIG_FILE));
        if let Some(config) = beside.into_iter().find(|config| config.is_file()) {
            let config = config.display();
            tracing::warn!("{config} is not read, because the model's file was named: name its folder instead");
        }
        return Ok(Found::One(Box::new(Listed { name, files, declared: Declared::default(), folder: None })));
    }
    let folder = Folder::read(path)?;
    // Its own `config.pbtxt` is read first, because it may say which file is the model.
    let (declared, home) = match declared(&folder)? {
        Some(declared) => (Some(declared), path.to_owned()),
        None => match of_model(path)? {
            Some((declared, home)) => (Some(declared), home),
            None => (None, path.to_owned()),
        },
    };
    let hints = declared.as_ref().map(Hints::of).unwrap_or_default();
    let single = folder.model(&hints)?;
    let versions = if single.as_ref().is_some_and(|(kind, _)| *kind == Kind::Mlflow) {
        // The files below the folder of an MLflow model belong to the model.
        Vec::new()
    } else {
        folder.versions(&name_of(path), &hints)?
    };
    let many = if single.is_some() || !versions.is_empty() { folder.first_of_many() } else { None };
    let mut readings = Vec::new();
    if let Some((_, file)) = &single {
        readings.push(format!("a model ({})", file.display()));
    }
    if let Some(first) = versions.first() {
        readings.push(format!("versions of a model ({})", first.path.display()));
    }
    if let Some(first) = many.filter(|_| single.as_ref().is_none_or(|(kind, _)| *kind == Kind::Onnx)) {
        readings.push(format!("a folder of models ({})", first.display()));
    }
    if readings.len() > 1 {
        let readings = readings.join(" and ");
        return Err(ServeError::Source(format!("{} holds {readings}: name the one to serve", path.display())));
    }
    let name = name_of(path);
    let files = match single {
        Some((kind, file)) => vec![ModelFile { name: name.clone(), version: None, kind, path: file }],
        None => versions,
    };
    if !files.is_empty() {
        let declared = declared.unwrap_or_default();
        return Ok(Found::One(Box::new(Listed { name, files, declared, folder: Some(home) })));
    }
    let many: Vec<_> = folder.below().filter_map(|folder| candidate(&folder)).collect();
    if many.is_empty() { Err(folder.nothing()) } else { Ok(Found::Many(many)) }
}

/// Inspects one folder in a folder of many models; `None` if nothing there looks like a model.
fn candidate(path: &Path) -> Option<Candidate> {
    let name = folder::name_with_end(path);
    let means_to_be =
        || path.join(CONFIG_FILE).is_file() || Folder::read(path).is_ok_and(|folder| folder.has_versions());
    match model_in(path, name.clone(), None) {
        // A folder of something else, unless a file or a folder in it shows that it is meant to be a model.
        Ok(listed) if listed.files.is_empty() && !means_to_be() => {
            tracing::info!(folder = %path.display(), "this folder is passed over: no model is in it");
            None
        }
        Ok(listed) if listed.files.is_empty() => {
            Some(Candidate { name, listed: Err(no_version(&path.display(), &listed.declared)) })
        }
        listed => Some(Candidate { name, listed }),
    }
}

/// The model in one folder of a repository: `NAME/VERSION/model.onnx`. `instead` replaces its own `config.pbtxt`. There
/// may be no files, if the folder contains no model.
pub(crate) fn model_in(path: &Path, name: String, instead: Option<Declared>) -> Result<Listed, ServeError> {
    let folder = Folder::read(path)?;
    let declared = match instead {
        Some(instead) => instead,
        None => declared(&folder)?.unwrap_or_default(),
    };
    let files = folder.versions(&name, &Hints::of(&declared))?;
    Ok(Listed { name, files, declared, folder: Some(path.to_owned()) })
}

/// The place that should contain versions has none.
pub(crate) fn no_version(place: &dyn std::fmt::Display, declared: &Declared) -> ServeError {
    let expected = match &declared.default_model_filename {
        Some(file) => format!("<version>/{file}, as default_model_filename in its {CONFIG_FILE} says"),
        None => folder::KNOWN_VERSIONS.to_owned(),
    };
    ServeError::Source(format!("{place} has no version of a model: expected {expected}"))
}

/// The content of the folder's `config.pbtxt`, if there is one.
fn declared(folder: &Folder) -> Result<Option<Declared>, ServeError> {
    match folder.config() {
        Some(file) => Declared::read(file).map(Some),
        None => Ok(None),
    }
}

/// The content of the model's `config.pbtxt`, and its folder, if `path` is the folder of one of its versions: `iris/1`,
/// with `iris/config.pbtxt`.
fn of_model(path: &Path) -> Result<Option<(Declared, PathBuf)>, ServeError> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Some(model) = absolute.parent().filter(|_| folder::is_version(&folder::name_with_end(&absolute))) else {
        return Ok(None);
    };
    let file = model.join(CONFIG_FILE);
    if !file.is_file() {
        return Ok(None);
    }
    Ok(Some((Declared::read(&file)?.of_named_version(), model.to_owned())))
}

/// What to serve of one model if a version was requested: that one of several. A single one gets the requested version,
/// because its folder cannot know its version elsewhere.
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

/// The name of the model at a remote address: for an MLflow registry its name there, otherwise from the path. `None` if
/// it is a local path.
pub(crate) fn name_of_address(uri: &str) -> Option<String> {
    // If an address did not determine the version, the resolved version follows it.
    let uri = uri.split(" → ").next().unwrap_or(uri);
    let (scheme, path) = uri.split_once(":/")?;
    let path = path.trim_matches('/');
    match scheme {
        "models" => path.split(['/', '@']).next().map(str::to_owned),
        "s3" | "gs" | "http" | "https" | "runs" | "mlflow-artifacts" => {
            let path = path.split(['?', '#']).next().unwrap_or(path);
            // Before the path of a web address is the host, perhaps with a password.
            let path =
                if scheme.starts_with("http") { path.split_once('/').map_or("", |(_, path)| path) } else { path };
            Some(name_of(Path::new(&format!("/{path}"))))
        }
        _ => None,
    }
}

/// Whether a remote address ends with a version, such as `s3://bucket/iris/1`.
pub(crate) fn is_version_address(uri: &str) -> bool {
    let path = uri.split(['?', '#']).next().unwrap_or(uri).trim_end_matches('/');
    !uri.starts_with("models:") && path.rsplit('/').next().is_some_and(folder::is_version)
}

/// The version of a registered model, from its address or as resolved.
pub(crate) fn version_of_address(uri: &str) -> Option<String> {
    let version = match uri.split_once(" → version ") {
        Some((_, version)) => version,
        None => uri.strip_prefix("models:/")?.trim_matches('/').split_once('/')?.1,
    };
    version.bytes().all(|byte| byte.is_ascii_digit()).then(|| version.to_owned())
}

/// The name for the model at `path`: that of its file or folder, or of its parent folder if that is just `model.onnx`
/// or a version.
fn name_of(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let names = absolute.ancestors().filter_map(|part| {
        let name = folder::name_with_end(part);
        let end = [".onnx", ".py"].into_iter().find(|end| name.to_ascii_lowercase().ends_with(end)).map_or(0, str::len);
        let name = name[..name.len() - end].to_owned();
        part.file_name().is_some().then_some(name)
    });
    names.into_iter().find(|name| name != "model" && !folder::is_version(name)).unwrap_or_else(|| "model".to_owned())
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

    fn one(path: &Path) -> Vec<ModelFile> {
        let Found::One(one) = find(path).unwrap() else { panic!("{} is many", path.display()) };
        one.files
    }

    #[test]
    fn a_source_is_recognised_by_what_is_in_it() {
        let root =
            folder(&["iris/model.onnx", "iris/golden.json", "lone/net.onnx", "two/1/model.onnx", "two/10/model.onnx"]);
        let iris = one(&root.path().join("iris"));
        assert_eq!(versions(&iris), [("iris", None)]);
        assert!(iris[0].golden().is_file());
        assert_eq!(versions(&one(&root.path().join("lone/net.onnx"))), [("net", None)]);
        assert_eq!(versions(&one(&root.path().join("two"))), [("two", Some("1")), ("two", Some("10"))]);
        assert_eq!(versions(&one(&root.path().join("two/10"))), [("two", None)]);
    }

    #[test]
    fn python_and_mlflow_models_are_recognised_and_what_lies_beside_them_is_theirs() {
        let root = folder(&["flow/MLmodel", "flow/model.onnx", "flow/data/1/model.onnx", "py/helper.py", "net/1/x"]);
        let class = "import modelway\n\nclass Net(modelway.AbstractModel):\n    pass\n";
        fs::write(root.path().join("py/net.py"), class).unwrap();
        fs::write(root.path().join("net/1/model.py"), "from net import *\n").unwrap();
        let is = |path: &str, kind: Kind, end: &str| {
            let files = one(&root.path().join(path));
            assert_eq!((files[0].kind, files[0].path.clone()), (kind, root.path().join(end)), "{path}");
        };
        is("flow", Kind::Mlflow, "flow");
        is("py", Kind::Python, "py/net.py");
        is("py/net.py", Kind::Python, "py/net.py");
        is("net", Kind::Python, "net/1/model.py");
        fs::write(root.path().join("net/1/model.py"), "class TritonPythonModel:\n").unwrap();
        let said = find(&root.path().join("net")).unwrap_err().to_string();
        assert!(said.contains("derive the class from modelway.AbstractModel"), "{said}");
    }

    #[test]
    fn a_model_from_elsewhere_is_called_as_its_address_calls_it() {
        for (uri, name) in [
            ("models:/wine/Production → version 3", "wine"),
            ("models:/wine@champion", "wine"),
            ("runs:/0e98/art/churn", "churn"),
            ("s3://bucket/models/iris/1/", "iris"),
            ("https://u:p@h/files/iris.onnx?signature=a/b", "iris"),
            ("https://u:p@h/model.onnx", "model"),
        ] {
            assert_eq!(name_of_address(uri).as_deref(), Some(name), "{uri}");
        }
        assert_eq!(name_of_address("file:///srv/iris"), None);
        for (uri, version) in [
            ("models:/wine/Production → version 3", Some("3")),
            ("models:/wine/12", Some("12")),
            ("models:/wine/Staging", None),
            ("runs:/0e98/7", None),
            ("s3://bucket/iris/1", None),
        ] {
            assert_eq!(version_of_address(uri).as_deref(), version, "{uri}");
        }
        assert_eq!(name_of_address("models/iris"), None);
        assert!(is_version_address("s3://bucket/iris/1/") && is_version_address("https://h/iris/v2?signature=a/b"));
        assert!(!is_version_address("s3://bucket/iris") && !is_version_address("models:/wine/12"));
    }

    #[test]
    fn the_folder_of_a_version_is_served_as_the_config_of_its_model_says() {
        let root = folder(&["iris/3/a.onnx", "iris/3/b.onnx", "plain/3/a.onnx"]);
        let write = |place: &str, text: &str| fs::write(root.path().join(place), text).unwrap();
        let policy = "version_policy: { specific: { versions: [1] } }";
        write("iris/config.pbtxt", &format!("max_batch_size: 8\ndefault_model_filename: \"b.onnx\"\n{policy}"));
        let listed = |place: &str| {
            let Found::One(one) = find(&root.path().join(place)).unwrap() else { panic!("{place} is many") };
            one.configured(&Config::default()).unwrap()
        };
        let iris = listed("iris/3");
        assert_eq!((iris.name.as_str(), iris.declared.max_batch_size), ("iris", Some(8)));
        assert!(iris.files[0].path.ends_with("iris/3/b.onnx"));
        assert_eq!(iris.folder, Some(root.path().join("iris")));
        // Its own file takes precedence.
        write("iris/3/config.pbtxt", "max_batch_size: 2\ndefault_model_filename: \"a.onnx\"");
        assert_eq!(listed("iris/3").declared.max_batch_size, Some(2));
        assert_eq!(listed("plain/3").declared.max_batch_size, None);
        // A damaged file is an error, like the one next to the versions.
        write("plain/config.pbtxt", "max_batch_sise: 2");
        assert!(find(&root.path().join("plain/3")).unwrap_err().to_string().contains("max_batch_size"));
    }

    #[test]
    fn a_folder_of_many_models_names_each_and_says_which_cannot_be_served() {
        let root = folder(&[
            "iris/1/model.onnx",
            "digits/1/model.onnx",
            "digits/2/model.onnx",
            "both/1/a.onnx",
            "both/1/b.onnx",
            "docs/x",
            "README.md",
        ]);
        let Found::Many(many) = find(root.path()).unwrap() else { panic!() };
        let names: Vec<_> = many.iter().map(|candidate| candidate.name.as_str()).collect();
        assert_eq!(names, ["both", "digits", "iris"]);
        assert!(many[0].listed.as_ref().unwrap_err().to_string().contains("a.onnx and b.onnx"));
        let digits = &many[1].listed.as_ref().unwrap().files;
        assert_eq!(versions(digits), [("digits", Some("1")), ("digits", Some("2"))]);
    }

    #[test]
    fn a_version_that_is_asked_for_is_served_alone() {
        let root = folder(&["two/1/model.onnx", "two/10/model.onnx", "one/1/model.onnx"]);
        let of = |source: &str, asked: Option<&str>| {
            of_version(one(&root.path().join(source)), asked)
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
        let mixed = folder(&["net.onnx"]);
        fs::write(mixed.path().join("model.py"), "class M(AbstractModel): ...").unwrap();
        let both = find(mixed.path()).unwrap_err().to_string();
        assert!(both.contains("net.onnx and model.py"), "{both}");
        let both = said(&["model.onnx", "1/model.onnx"]);
        assert!(both.contains("a model (") && both.contains("versions of a model ("), "{both}");
        let both = said(&["1/model.onnx", "iris/1/model.onnx"]);
        assert!(both.contains("a folder of models ("), "{both}");
    }

    #[test]
    fn a_folder_without_a_model_says_what_was_looked_for_and_what_is_there() {
        let said = find(folder(&["weights.bin"]).path()).unwrap_err().to_string();
        assert!(said.contains("below <version>") && said.contains("weights.bin"), "{said}");
        let said = find(&folder(&["model.pkl"]).path().join("model.pkl")).unwrap_err().to_string();
        assert!(said.contains("expected an *.onnx file") && said.contains("whose load() reads this one"), "{said}");
    }
}
