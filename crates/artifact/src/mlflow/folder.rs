//! The `mlruns` folder, which MLflow writes without a server.
//!
//! Runs and logged models are found by their ids, which are the names of folders. Registered models need a server, so
//! their addresses are refused, with instructions to start one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use url::Url;

use super::{address::Address, resolved::Resolved};
use crate::{error::Failure, place::Place};

/// The folder of a tracking URI, if it is an existing folder.
pub(super) fn of(tracking: &str) -> Result<Option<PathBuf>, Failure> {
    let path = match Url::parse(tracking) {
        Ok(url) if url.scheme() == "file" => url.to_file_path().ok(),
        Ok(_) => None,
        Err(_) if tracking.is_empty() => None,
        Err(_) => Some(PathBuf::from(tracking)),
    };
    match path {
        Some(path) if path.is_dir() => Ok(Some(path)),
        Some(path) => {
            let reason = format!("the MLflow server is said to be the folder {}, which is not there", path.display());
            Err(Failure::Refused("mlflow_not_configured", reason))
        }
        None => Ok(None),
    }
}

pub(super) fn resolve(folder: &Path, address: &Address) -> Result<Resolved, Failure> {
    let place = match address {
        Address::Run { run, path } => below_experiments(folder, &[run, "artifacts"])?.join(plain(path)?),
        Address::Logged { id } => below_experiments(folder, &["models", id, "artifacts"])?,
        Address::Registered { .. } | Address::Artifacts { .. } => {
            let folder = folder.display();
            let reason = format!(
                "it is resolved by an MLflow server, and {folder} is a folder: start one over it (`mlflow server \
                 --backend-store-uri {folder}`) and name it in MLFLOW_TRACKING_URI=http://host:port"
            );
            return Err(Failure::Refused("mlflow_not_configured", reason));
        }
    };
    let location = place.display().to_string();
    Ok(Resolved { place: Place::Local(place), location, version: None })
}

/// The folder with these names in any of the experiments.
fn below_experiments(folder: &Path, names: &[&str]) -> Result<PathBuf, Failure> {
    for name in names {
        plain(name)?;
    }
    for experiment in fs::read_dir(folder)? {
        let place = names.iter().fold(experiment?.path(), |place, name| place.join(name));
        if place.is_dir() {
            return Ok(place);
        }
    }
    Err(Failure::Absent(format!("no experiment in {} has {}", folder.display(), names.join("/"))))
}

/// A path that stays within its folder.
fn plain(path: &str) -> Result<&str, Failure> {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(Failure::Refused("artifact_unsafe", format!("`{path}` leaves its folder")));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_and_a_logged_model_are_found_without_a_server_and_a_registered_one_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let (run, model) = (root.path().join("7/r1/artifacts/model"), root.path().join("0/models/m-1/artifacts"));
        fs::create_dir_all(&run).expect("it can be made");
        fs::create_dir_all(&model).expect("it can be made");
        let folder = of(&format!("file://{}", root.path().display())).expect("it is there").expect("a folder");
        let resolve = |scheme: &str, rest: &str| resolve(&folder, &Address::parse(scheme, rest).expect(rest));
        assert_eq!(resolve("runs", "/r1/model").expect("it is there").place, Place::Local(run));
        assert_eq!(resolve("models", "/m-1").expect("it is there").place, Place::Local(model));
        assert!(matches!(resolve("runs", "/r2/model"), Err(Failure::Absent(_))));
        assert!(matches!(resolve("runs", "/r1/../../x"), Err(Failure::Refused("artifact_unsafe", _))));
        let Err(Failure::Refused(_, said)) = resolve("models", "/iris/1") else { panic!() };
        assert!(said.contains("mlflow server --backend-store-uri"), "{said}");
    }

    #[test]
    fn a_server_is_no_folder_and_a_folder_that_is_not_there_is_said() {
        assert!(matches!(of("http://127.0.0.1:5000"), Ok(None)));
        assert!(matches!(of("sqlite:///mlflow.db"), Ok(None)));
        assert!(matches!(of(""), Ok(None)));
        assert!(matches!(of("/nowhere/mlruns"), Err(Failure::Refused(..))));
    }
}
