//! Why an artefact cannot be had, sorted by what to do next.

use std::{error::Error, fmt::Write as _, io, path::PathBuf};

/// Why an artefact cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Nothing is at any of the places. A person must change the model's address, or put it there.
    #[error("nothing is at {}; check the address of the model, or put it there", tried.join(" nor at "))]
    Missing {
        /// Every place that was looked at, in order.
        tried: Vec<String>,
    },
    /// What is there is not what was promised. A person must change one or the other.
    #[error(
        "{uri} has the digest {found}, but {expected} was asked for; it was changed or damaged: publish it again or correct the digest"
    )]
    Mismatch {
        /// Where it came from.
        uri: String,
        /// The digest that was given.
        expected: String,
        /// The digest that it has.
        found: String,
    },
    /// A revision began with other files. A person must deploy it again, or put the files back.
    #[error(
        "{uri} has changed: this revision has served {expected} since {since}, and what is there now{} is {found}; \
         `modelway deploy` the model again, which makes a new revision, or put the old files back",
        modified.as_ref().map(|modified| format!(" (last modified {modified})")).unwrap_or_default()
    )]
    Changed {
        /// Where the files are.
        uri: String,
        /// The digest that the revision is pinned to.
        expected: String,
        /// Since when.
        since: String,
        /// The digest of what is there.
        found: String,
        /// When that was last modified, of files of this machine.
        modified: Option<String>,
    },
    /// A revision began with files that are gone. A person must put them back, or deploy something else.
    #[error(
        "the files of this revision are gone: nothing is at {}, and this machine's cache does not hold {expected}, which it \
         has served since {since}; put them back, or deploy another model",
        tried.join(" nor at ")
    )]
    Gone {
        /// Every place that was looked at, in order.
        tried: Vec<String>,
        /// The digest that the revision is pinned to.
        expected: String,
        /// Since when.
        since: String,
    },
    /// It is there or may be, and it will not be taken. A person must change it or the settings.
    #[error("{uri} is refused: {reason}")]
    Refused {
        /// Where it was to come from.
        uri: String,
        /// A stable word: see [`ArtifactError::code`].
        code: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The place cannot be asked just now. Asking again may work, and goes on where this ended.
    #[error("{uri} cannot be reached: {reason}; try again: what was already downloaded is kept")]
    Unavailable {
        /// What was asked for.
        uri: String,
        /// What happened, with its causes.
        reason: String,
    },
    /// The disk is full. Nothing unfinished is left on it.
    #[error("the disk of {} is full while fetching {uri}; free some space, or move the cache with `serve.cache.dir`", dir.display())]
    DiskFull {
        /// What was asked for.
        uri: String,
        /// The cache's folder.
        dir: PathBuf,
    },
    /// The cache's folder does not work.
    #[error("the artefact cache {} does not work: {source}; give its folder to this user, or move it with `serve.cache.dir`", dir.display())]
    Cache {
        /// The folder.
        dir: PathBuf,
        /// What the machine says.
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

    /// Whether the same call may succeed later although nobody changes the model or the settings.
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

/// Why one step towards one place failed, before it is known which place that was.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing is there.
    Missing,
    /// Nothing is there, and this is why.
    Absent(String),
    /// It is another one than a moment ago: begin again.
    Changed,
    /// The way to it broke: try again.
    Broken(String),
    /// It will not be taken, under this code and for this reason.
    Refused(&'static str, String),
    /// It has another digest than was asked for.
    Mismatch { expected: String, found: String },
    /// The machine's own fault.
    Disk(io::Error),
}

impl Failure {
    pub(crate) fn broken(error: &(dyn Error + 'static)) -> Self {
        Self::Broken(chain(error))
    }

    /// The error as a caller sees it, with the place (without secrets) and the cache's folder.
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

/// An error and its causes in one line, without repeating a cause that its effect already quotes.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        next = cause.source();
    }
    text
}
