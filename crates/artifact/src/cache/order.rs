//! What is asked of the cache, and what it gives.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use api::Timestamp;

use crate::{
    digest::{files_below, hex_of, prefixed},
    error::{ArtifactError, Failure},
    lock::Lock,
    place::{Place, shown},
    unpack::Archive,
};

/// How often an artefact may change while it is read.
pub(super) const MAX_CHANGES: u32 = 3;

/// An artefact on this machine. The cache keeps the files as long as this value and its process exist.
#[derive(Debug)]
pub struct Fetched {
    /// Which of the addresses it was, as given; and the version, if the address did not determine it:
    /// `models:/iris/Production → version 3`.
    pub uri: String,
    /// The address that always finds the same files: with the version of a registered model, if `uri` did not determine
    /// it.
    pub resolved: String,
    /// Its digest; `None` for local files without a given digest, because all of them would have to be read.
    pub digest: Option<String>,
    /// A value that changes whenever anything at a remote location changes: see [`crate::Seen::fingerprint`].
    pub fingerprint: Option<String>,
    /// The file or folder. Nobody may change it.
    pub path: PathBuf,
    pub(super) _pin: Option<Lock>,
}

/// A request to one location.
pub(super) struct Wanted<'a> {
    pub(super) uri: &'a str,
    pub(super) place: &'a Place,
    /// Hex digits.
    pub(super) digest: Option<&'a str>,
    /// The address as a file name.
    pub(super) key: String,
    /// Which local files are copied; `None` serves them in place.
    pub(super) alone: Option<Alone>,
}

/// A request, independent of the location.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'o> {
    /// Hex digits.
    pub(super) digest: Option<&'o str>,
    /// The revision that requests it; `None` serves local files in place.
    pub(super) pin: Option<Pin<'o>>,
}

/// Returns whether a file or folder is the complete model. One that needs files next to it is served in place.
pub(super) type Alone = fn(&Path) -> bool;

/// The request of a revision's replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pin<'p> {
    /// Since when the revision has its digest; `None` for its first replica.
    pub(super) since: Option<&'p str>,
    pub(super) alone: Alone,
}

impl Wanted<'_> {
    /// Local files, served in place.
    pub(super) fn in_place(&self, path: PathBuf, digest: Option<String>) -> Fetched {
        let uri = self.uri.to_owned();
        Fetched { resolved: uri.clone(), uri, digest, fingerprint: None, path, _pin: None }
    }
}

/// The hex digits of a given digest.
pub(super) fn hex_digits<'d>(uris: &[String], digest: Option<&'d str>) -> Result<Option<&'d str>, ArtifactError> {
    let Some(given) = digest else { return Ok(None) };
    let hex = hex_of(given).ok_or_else(|| ArtifactError::Refused {
        uri: uris.first().map(|uri| shown(uri)).unwrap_or_default(),
        code: "digest_invalid",
        reason: format!("`{given}` is not a digest; write sha256: and 64 lower-case hex digits"),
    })?;
    Ok(Some(hex))
}

pub(super) fn agrees(expected: Option<&str>, found: &str) -> Result<(), Failure> {
    match expected.map(prefixed) {
        Some(expected) if expected != found => Err(Failure::Mismatch { expected, found: found.to_owned() }),
        _ => Ok(()),
    }
}

/// The name of an artefact in the cache.
pub(super) fn entry_name(hex: &str, archive: Option<Archive>) -> String {
    if archive.is_some() { format!("{hex}.unpacked") } else { hex.to_owned() }
}

/// The files of a file or folder, with their names in the copy.
pub(super) fn files_of(path: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    if path.is_dir() {
        return files_below(path);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("model");
    Ok(vec![(name.to_owned(), path.to_owned())])
}

/// Why a revision cannot use the current files at its location.
pub(super) fn changed(uri: &str, place: &Place, (expected, found): (String, String), since: &str) -> ArtifactError {
    let modified = match place {
        Place::Local(path) => last_modified(path).map(|time| format!("{}Z", Timestamp::from(time))),
        Place::Http(_) | Place::Bucket { .. } | Place::Mlflow(_) | Place::Tracked(_) => None,
    };
    ArtifactError::Changed { uri: shown(uri), expected, since: since.to_owned(), found, modified }
}

pub(super) fn last_modified(path: &Path) -> Option<SystemTime> {
    let files = files_of(path).ok()?;
    files.into_iter().filter_map(|(_, file)| fs::metadata(file).ok()?.modified().ok()).max()
}
