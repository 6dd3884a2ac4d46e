//! Why an artefact is not available, grouped by what to do next.

use std::{error::Error, io, path::PathBuf};

use base::error::chain;

/// Why an artefact is not available.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// No location has files. A person must change the address of the model, or put the files there.
    #[error("found nothing at {}; check the address of the model, or put the files there", tried.join(" nor at "))]
    Missing {
        /// Every location that was tried, in order.
        tried: Vec<String>,
    },
    /// The files differ from the expected ones. A person must change one or the other.
    #[error(
        "{uri} has the digest {found}, but {expected} was asked for; it was changed or damaged: publish it again or correct the digest"
    )]
    Mismatch {
        /// The source.
        uri: String,
        /// The digest that was given.
        expected: String,
        /// The digest that it has.
        found: String,
    },
    /// A revision began with other files. A person must deploy it again, or restore the files.
    #[error(
        "{uri} has changed: this revision has served {expected} since {since}, but the current content{} is {found}; \
         `modelway deploy` the model again, which makes a new revision, or put the old files back",
        modified.as_ref().map(|modified| format!(" (last modified {modified})")).unwrap_or_default()
    )]
    Changed {
        /// The location of the files.
        uri: String,
        /// The digest that the revision is pinned to.
        expected: String,
        /// Since when.
        since: String,
        /// The digest of the current files.
        found: String,
        /// When the current files were last modified, if they are local.
        modified: Option<String>,
    },
    /// A revision began with files that no longer exist. A person must restore them, or deploy something else.
    #[error(
        "the files of this revision are gone: found nothing at {}, and the cache of this machine does not have \
         {expected}, which it has served since {since}; put them back, or deploy another model",
        tried.join(" nor at ")
    )]
    Gone {
        /// Every location that was tried, in order.
        tried: Vec<String>,
        /// The digest that the revision is pinned to.
        expected: String,
        /// Since when.
        since: String,
    },
    /// It exists or may exist, but is refused. A person must change it or the settings.
    #[error("{uri} is refused: {reason}")]
    Refused {
        /// The source.
        uri: String,
        /// A stable code: see [`ArtifactError::code`].
        code: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The location cannot be reached now. A retry may work, and continues the download.
    #[error("{uri} cannot be reached: {reason}; try again: what was already downloaded is kept")]
    Unavailable {
        /// The requested address.
        uri: String,
        /// The error with its causes.
        reason: String,
    },
    /// The disk is full. No partial files remain.
    #[error("the disk of {} is full while fetching {uri}; free some space, or move the cache with `serve.cache.dir`", dir.display())]
    DiskFull {
        /// The requested address.
        uri: String,
        /// The cache's folder.
        dir: PathBuf,
    },
    /// The folder of the cache is unusable.
    #[error("the artefact cache {} is unusable: {source}; make its folder writable for this user, or move it with `serve.cache.dir`", dir.display())]
    Cache {
        /// The folder.
        dir: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
}

impl ArtifactError {
    /// A stable word for programs: `artifact_missing`, `checksum_mismatch`, `artifact_changed`, `artifact_unavailable`,
    /// `disk_full`, `cache_failed`, or of the refused ones `artifact_refused` (scheme, root, or form), `artifact_unsafe`
    /// (a name that leaves its folder), `artifact_too_large`, `artifact_denied` (credentials), `artifact_corrupt`,
    /// `cache_full` (everything in it is in use), `digest_invalid`, `mlflow_not_configured` (no server is named).
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Gone { .. } => "artifact_missing",
            Self::Changed { .. } => "artifact_changed",
            Self::Mismatch { .. } => "checksum_mismatch",
            Self::Refused { code, .. } => code,
            Self::Unavailable { .. } => "artifact_unavailable",
            Self::DiskFull { .. } => "disk_full",
            Self::Cache { .. } => "cache_failed",
        }
    }

    /// Whether the same call may succeed later without changes of the model or the settings.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::DiskFull { .. } => true,
            Self::Refused { code, .. } => *code == "cache_full",
            Self::Missing { .. }
            | Self::Gone { .. }
            | Self::Mismatch { .. }
            | Self::Changed { .. }
            | Self::Cache { .. } => false,
        }
    }
}

/// Why one step for one location failed. The location is added later.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It does not exist.
    Missing,
    /// It does not exist, for this reason.
    Absent(String),
    /// It has changed during the download: begin again.
    Changed,
    /// The connection broke: retry.
    Broken(String),
    /// It is refused, with this code and this reason.
    Refused(&'static str, String),
    /// It has a different digest than requested.
    Mismatch { expected: String, found: String },
    /// An error of this machine.
    Disk(io::Error),
}

impl Failure {
    pub(crate) fn broken(error: &(dyn Error + 'static)) -> Self {
        Self::Broken(chain(error))
    }

    /// The error for the caller, with the location (without secrets) and the folder of the cache.
    pub(crate) fn at(self, uri: &str, dir: &std::path::Path) -> ArtifactError {
        let uri = uri.to_owned();
        match self {
            Self::Missing => ArtifactError::Missing { tried: vec![uri] },
            Self::Absent(why) => ArtifactError::Missing { tried: vec![format!("{uri} ({why})")] },
            Self::Changed => {
                ArtifactError::Unavailable { uri, reason: "it keeps changing while it is read".to_owned() }
            }
            Self::Broken(reason) => ArtifactError::Unavailable { uri, reason },
            Self::Refused(code, reason) => ArtifactError::Refused { uri, code, reason },
            Self::Mismatch { expected, found } => ArtifactError::Mismatch { uri, expected, found },
            Self::Disk(source) if is_full(&source) => ArtifactError::DiskFull { uri, dir: dir.to_owned() },
            Self::Disk(source) => ArtifactError::Cache { dir: dir.to_owned(), source },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
