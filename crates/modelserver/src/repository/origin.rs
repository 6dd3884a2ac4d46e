//! The source of a model's files for a load: the source of the server, inspected again, or the request itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::LoadRequest;
use crate::{
    Config, ServeError,
    load::fetch::{fetch, look},
    repository::registry::{Held, Registry},
    source::{self, Found, Listed, declared::Declared},
};

/// The files of one load.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) held: Held,
    root: PathBuf,
    /// Only the files of this model, whatever its name is.
    of_request: bool,
    instead: Option<Declared>,
}

impl Origin {
    /// Fetches the files.
    pub(super) async fn of(config: &Config, request: LoadRequest) -> Result<Self, ServeError> {
        let instead = request.config.as_deref().map(Declared::from_json).transpose()?;
        if request.files.is_empty() {
            let fetched = fetch(config).await?;
            let root = fetched.path.clone();
            return Ok(Self { held: Held::Fetched(fetched), root, of_request: false, instead });
        }
        let folder = write(&request)?;
        let root = folder.path().to_owned();
        Ok(Self { held: Held::Folder(folder), root, of_request: true, instead })
    }

    /// The model with this name, or why it cannot be served; `None` if it does not exist. Blocks.
    pub(super) fn find(&self, config: &Config, models: &Registry, name: &str) -> Option<Result<Listed, ServeError>> {
        if self.of_request {
            return Some(self.model_in(&self.root, name));
        }
        let below = self.root.join(name);
        let plain = Path::new(name).components().count() == 1 && !name.starts_with('.');
        let found = match &self.held {
            Held::Fetched(fetched) => look(fetched),
            Held::Folder(_) => source::find(&self.root),
        };
        match found {
            // The source of the server is one model, whatever its folder is called.
            Ok(Found::One(listed)) => models.knows(name).then(|| self.as_asked(*listed, config)),
            Ok(Found::Many(many)) if config.model_name.as_deref() == Some(name) && many.len() == 1 => {
                let listed = many.into_iter().next()?.listed;
                Some(listed.and_then(|listed| self.as_asked(listed, config)))
            }
            Ok(Found::Many(_)) if plain && below.is_dir() => Some(self.model_in(&below, name)),
            Ok(Found::Many(_)) => None,
            Err(error) if models.knows(name) => Some(Err(error)),
            Err(_) => None,
        }
    }

    fn model_in(&self, folder: &Path, name: &str) -> Result<Listed, ServeError> {
        let listed = source::model_in(folder, name.to_owned(), self.instead.clone())?;
        match (listed.files.is_empty(), self.of_request) {
            (false, _) => listed.chosen(),
            (true, true) => Err(source::no_version(&"the request", &listed.declared)),
            (true, false) => Err(source::no_version(&folder.display(), &listed.declared)),
        }
    }

    /// The single model of the source, with the name and version that it is served under.
    fn as_asked(&self, mut listed: Listed, config: &Config) -> Result<Listed, ServeError> {
        if let Some(instead) = &self.instead {
            listed.declared = instead.clone();
        }
        listed.configured(config)
    }
}

/// Writes the files of a request to a separate folder that only this user can read.
fn write(request: &LoadRequest) -> Result<tempfile::TempDir, ServeError> {
    let failed = |source| ServeError::Io { what: "the request's files cannot be written".to_owned(), source };
    let folder = tempfile::Builder::new().prefix("modelway-model-").tempdir().map_err(failed)?;
    for (path, bytes) in &request.files {
        let path = folder.path().join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::write(path, bytes).map_err(failed)?;
    }
    Ok(folder)
}
