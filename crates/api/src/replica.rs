//! A replica: what it says of itself, and where it can be reached.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;

use crate::id::ReplicaId;

/// The files that a replica serves, as it found them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundFiles {
    /// Where they were found: of several places the one that had them, and of a registered model of MLflow its version.
    #[schema(example = "s3://demmodels/models/v1")]
    pub uri: String,
    /// `sha256:…` of them.
    pub digest: String,
    /// Of an object store or a web server, a word made of the names, sizes, ETags and times that it tells. It differs
    /// when any of these has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// Where a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Its process runs; its model does not predict yet.
    Starting,
    /// It predicts.
    Ready,
    /// It ended by itself and will be started again.
    BackingOff,
    /// It was told to end and finishes what it has begun.
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

/// Where a replica takes requests: `unix:/path` or `host:port`.
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

/// The text is no address.
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

/// The path at which `modelway serve` answers [`SelfReport`]. With `?after=SEQ` it waits (at most 30 s)
/// until the report's `seq` is greater than SEQ, so that a watcher need not poll.
pub const SELF_REPORT_PATH: &str = "/modelway/replica";

/// The header of an answer that refuses a request before anything of it was begun: the server is full, stops or is
/// not ready. Such a request can be sent elsewhere, whatever it does. Over gRPC it is metadata of the answer.
pub const NOT_BEGUN_HEADER: &str = "x-modelway-not-begun";

/// What a running `modelway serve` says of itself: the handshake by which a replica is adopted, and its
/// use of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfReport {
    /// The id that it was started with, if any.
    pub replica: Option<ReplicaId>,
    /// Its process id.
    pub pid: u32,
    /// Grows by one with each change of `state`.
    pub seq: u64,
    /// Where it stands; never `BackingOff`.
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

/// How a replica that cannot serve its model ends: written as JSON to the file named by
/// `--termination-message`, and in words to standard error. (The same file as Kubernetes'
/// `terminationMessagePath`.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminationMessage {
    /// A stable word: see [`crate::deployment::StatusError::code`].
    pub code: String,
    /// A sentence: what is wrong and what to do.
    pub message: String,
    /// The files of its model, if it had found them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FoundFiles>,
}

/// The exit status of a `serve` whose model a person must change (`EX_CONFIG` of sysexits.h): starting it
/// again at once cannot help.
pub const EXIT_MODEL_INVALID: u8 = 78;
