//! A replica: its reports about itself, and its address.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;

use crate::id::ReplicaId;

/// The files that a replica serves, as it found them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundFiles {
    /// Where the files were found: of several locations, the one that had them; for a registered MLflow model, its
    /// version.
    #[schema(example = "s3://demmodels/models/v1")]
    pub uri: String,
    /// `sha256:…` of the files.
    pub digest: String,
    /// For an object store or a web server, a value computed from the names, sizes, ETags and times of the files. It
    /// changes when any of them changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// The state of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Its process runs, but its model does not predict yet.
    Starting,
    /// It predicts.
    Ready,
    /// It ended by itself and will be restarted.
    BackingOff,
    /// It was told to stop and finishes its running requests.
    Stopping,
}

impl fmt::Display for ReplicaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::BackingOff => "backing off",
            Self::Stopping => "stopping",
        })
    }
}

/// The address of a replica: `unix:/path` or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket on the gateway's machine.
    Unix(PathBuf),
    /// A TCP host and port.
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => f.write_str(host),
        }
    }
}

/// The text is not a valid address.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an address: write host:port or unix:/path")]
pub struct NotAnAddress(String);

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            None if text
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
            {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err(NotAnAddress(text.to_owned())),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The path where `modelway serve` returns [`SelfReport`]. With `?after=SEQ` it waits (at most 30 s) until the `seq` of
/// the report is greater than SEQ, so that a watcher does not need to poll.
pub const SELF_REPORT_PATH: &str = "/modelway/replica";

/// The header of an error response to a request that was not begun: the server is full, is stopping or is not ready.
/// Such a request can be sent to another replica, even if it is not idempotent. In gRPC it is metadata of the answer.
pub const NOT_BEGUN_HEADER: &str = "x-modelway-not-begun";

/// What a running `modelway serve` reports about itself. A worker uses it to adopt a replica and to read its resource
/// usage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfReport {
    /// The replica id that it was started with, if any.
    pub replica: Option<ReplicaId>,
    /// Its process id.
    pub pid: u32,
    /// Increases by one with each change of `state`.
    pub seq: u64,
    /// The state; never `BackingOff`.
    pub state: ReplicaState,
    /// The artefact that it serves, once found.
    pub artifact: Option<String>,
    /// The files of the artefact, once found.
    #[serde(default)]
    pub files: Option<FoundFiles>,
    /// CPU time used so far, in microseconds.
    pub cpu_micros: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
}

/// The reason why a replica cannot serve its model. It is written as JSON to the file that `--termination-message`
/// names, and as text to standard error. (On Kubernetes, this is the file of `terminationMessagePath`.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminationMessage {
    /// A stable code: see [`crate::deployment::StatusError::code`].
    pub code: String,
    /// A sentence that says what is wrong and what to do.
    pub message: String,
    /// The files of the model, if they were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FoundFiles>,
}

/// The exit status of `serve` if a person must change the model (`EX_CONFIG` of sysexits.h): an immediate restart does
/// not help.
pub const EXIT_MODEL_INVALID: u8 = 78;
