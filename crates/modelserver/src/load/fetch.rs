//! Brings a model's files here, and finds what they are.

use std::path::Path;

use artifact::{Cache, Fetched};

use crate::{
    Config, ServeError, onnx,
    source::{self, Found, ModelFile},
};

/// Brings the artefact here. Keep the [`Fetched`] as long as its files are used.
pub(crate) async fn fetch(config: &Config) -> Result<Fetched, ServeError> {
    let places = config.places();
    if places.is_empty() {
        return Err(ServeError::NoSource);
    }
    let artifact = |e: artifact::ArtifactError| ServeError::Artifact {
        code: e.code(),
        message: e.to_string(),
        retry: e.may_pass(),
    };
    let cache = Cache::open_for(config.cache.clone(), &places).map_err(artifact)?;
    let digest = config.digest.as_deref();
    let fetched = match config.replica_id {
        // The revision of a replica never serves other files than it began with.
        Some(_) => {
            let since = config.pinned_since.as_deref();
            cache.fetch_for_revision(&places, digest, since, stands_alone).await
        }
        None => cache.fetch(&places, digest).await,
    };
    fetched.map_err(artifact)
}

/// Whether a file or folder is all that the model needs. A version's folder is served by the file beside it.
fn stands_alone(path: &Path) -> bool {
    let above = || path.parent().is_some_and(|model| model.join(source::CONFIG_FILE).is_file());
    if path.is_dir() { path.join(source::CONFIG_FILE).is_file() || !above() } else { onnx::is_whole(path) }
}

/// What was fetched. One model is called as its address calls it: the cache's folders say nothing.
pub(crate) fn look(fetched: &Fetched) -> Result<Found, ServeError> {
    let mut found = source::find(&fetched.path)?;
    if let (Found::One(listed), Some(name)) = (&mut found, source::name_of_address(&fetched.uri)) {
        let version = source::version_of_address(&fetched.uri);
        for file in &mut listed.files {
            file.name.clone_from(&name);
            file.version = file.version.take().or_else(|| version.clone());
        }
        listed.name = name;
        if source::is_version_address(&fetched.uri) && !fetched.path.join(source::CONFIG_FILE).is_file() {
            tracing::info!(
                address = fetched.uri,
                "only the folder of this version was fetched: a config.pbtxt above it is not read"
            );
        }
    }
    Ok(found)
}

/// The one model of a source that holds just one version of one.
pub(crate) fn only(fetched: &Fetched) -> Result<ModelFile, ServeError> {
    let mut files = match source::find(&fetched.path)? {
        Found::One(listed) => listed.files,
        Found::Many(many) => {
            let mut files = Vec::new();
            for candidate in many {
                files.extend(candidate.listed?.files);
            }
            files
        }
    };
    match (files.pop(), files.pop()) {
        (Some(file), None) => Ok(file),
        (Some(a), Some(b)) => Err(ServeError::Source(format!(
            "there is more than one model, {} and {}: name one of them",
            b.path.display(),
            a.path.display()
        ))),
        (None, _) => Err(ServeError::NoSource),
    }
}
