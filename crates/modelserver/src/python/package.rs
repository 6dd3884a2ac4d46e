//! The Python package `modelway`, embedded in this binary, so that a worker needs only an installed interpreter.
//!
//! Each version of its contents is written once, completely or not at all, to a folder that all servers of this user
//! share. Python stores its compiled form next to it.
//! user shares. Python keeps its compiled form beside it.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../python/src/modelway/", $name)))),*]
    };
}

/// Every file of the package.
const FILES: &[(&str, &str)] = files![
    "__init__.py",
    "__main__.py",
    "_advice.py",
    "_attach.py",
    "_check.py",
    "_class.py",
    "_convert.py",
    "_frames.py",
    "_guard.py",
    "_hints.py",
    "_jsonable.py",
    "_keeper.py",
    "_metrics.py",
    "_mlflow.py",
    "_mlflow_answers.py",
    "_mlflow_documents.py",
    "_mlflow_flavors.py",
    "_model.py",
    "_models.py",
    "_opened.py",
    "_serving.py",
    "_spec.py",
    "_values.py",
    "_worker.py",
    "client.py",
    "notebook.py",
];

/// The package's name.
const NAME: &str = "modelway";

/// The folder for Python's path, below `cache`; the package is written to it if it is missing.
pub(super) fn unpack(cache: &Path) -> io::Result<PathBuf> {
    let all = cache.join("python");
    let folder = all.join(hash());
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&all)?;
    // A separate folder for each writer: models are loaded in parallel.
    let staged = tempfile::Builder::new().prefix(".").permissions(Permissions::from_mode(0o755)).tempdir_in(&all)?;
    let package = staged.path().join(NAME);
    fs::create_dir(&package)?;
    for (name, text) in FILES {
        fs::write(package.join(name), text)?;
    }
    match fs::rename(staged.path(), &folder) {
        // Another writer was faster, or writing is impossible.
        Err(error) if !folder.is_dir() => Err(error),
        Ok(()) | Err(_) => Ok(folder),
    }
}

fn hash() -> String {
    let mut hasher = Sha256::new();
    for (name, text) in FILES {
        hasher.update(format!("{name}\0{}\0", text.len()));
        hasher.update(text);
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_package_is_carried() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/src/modelway");
        let mut there: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("__pycache__"))
            .collect();
        there.sort();
        let carried: Vec<_> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(carried, there);
    }

    #[test]
    fn it_is_written_once_and_whole() {
        let cache = tempfile::tempdir().unwrap();
        let folder = unpack(cache.path()).unwrap();
        assert!(folder.join("modelway/_worker.py").is_file());
        fs::write(folder.join("mark"), "").unwrap();
        assert_eq!(unpack(cache.path()).unwrap(), folder);
        assert!(folder.join("mark").is_file());
        assert_eq!(fs::read_dir(cache.path().join("python")).unwrap().count(), 1);
    }
}
