//! The seam behind which replicas run, and its implementations.
//!
//! A backend is told how many replicas of a revision there shall be and says what there is. It decides
//! nothing about traffic, and it remembers nothing that it cannot read back from the machine: a new
//! process finds the replicas that an old one left.

pub mod conformance;
pub mod fake;
pub mod process;

use std::time::Duration;

use api::{
    DeploymentId, ReplicaId, Revision, RevisionNumber, Timestamp,
    deployment::StatusError,
    replica::{Address, ReplicaState},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a backend failed, sorted by what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Asking again may work.
    #[error("the {backend} backend is unavailable")]
    Unavailable {
        /// Which backend.
        backend: &'static str,
        /// What happened.
        #[source]
        source: BoxError,
    },
    /// A person must change the deployment.
    #[error("the {backend} backend rejects this deployment: {reason}")]
    Rejected {
        /// Which backend.
        backend: &'static str,
        /// A sentence: what is wrong and what to do.
        reason: String,
    },
    /// Another worker has taken over; stop working on this deployment.
    #[error("this worker's lease was taken over (fence {given}, newest {newest})")]
    Fenced {
        /// The caller's fencing token.
        given: i64,
        /// The newest one seen.
        newest: i64,
    },
}

/// One replica, as its backend sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub id: ReplicaId,
    /// Whose replica.
    pub deployment: DeploymentId,
    /// What it runs.
    pub revision: RevisionNumber,
    /// Where it stands.
    pub state: ReplicaState,
    /// Where it takes requests.
    pub address: Address,
    /// When its present process started.
    pub started_at: Option<Timestamp>,
    /// How often it was started again after it ended by itself.
    pub restarts: u32,
    /// How its last process ended, if it ended by itself. Stays after the restart until it is ready.
    pub failure: Option<Failure>,
    /// When a replica that backs off will be due: call [`Backend::ensure`] then.
    pub retry_at: Option<Timestamp>,
    /// The artefact that it serves, once it said so.
    pub artifact: Option<String>,
    /// What a user should know, such as limits that this machine cannot enforce.
    pub notes: Vec<String>,
}

/// How a replica ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened, with the last lines of the log.
    pub error: StatusError,
    /// Whether starting it again is hopeless until a person changes something.
    pub permanent: bool,
}

/// A place where replicas can run.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Names the kind and the place, such as `process:3f2a`. Workers of one database share one scope.
    fn scope(&self) -> String;

    /// Makes `want` replicas of `revision` run: starts missing ones, starts again those whose back-off has
    /// passed, and tells surplus ones to drain and end: those that are not ready first, then the last by
    /// their numbers, so that a caller knows beforehand which. Returns without waiting for readiness.
    /// Calling it again is harmless. `fence` is the caller's lease; an older one than the newest seen is refused.
    async fn ensure(&self, revision: &Revision, want: u32, fence: i64) -> Result<(), BackendError>;

    /// What runs for one deployment, in the order of the replicas' names.
    async fn observe(&self, deployment: DeploymentId) -> Result<Vec<Replica>, BackendError>;

    /// What runs at all, strays included, in the order of the replicas' names.
    async fn observe_all(&self) -> Result<Vec<Replica>, BackendError>;

    /// Tells every replica of a deployment (or of just one of its revisions) to drain and end, and forgets
    /// it when it has. Call it until `observe` shows nothing. Its log files are kept a while.
    async fn remove(
        &self,
        deployment: DeploymentId,
        revision: Option<RevisionNumber>,
        fence: i64,
    ) -> Result<(), BackendError>;

    /// Deployments whose replicas have changed by themselves: became ready, ended. May repeat; never ends
    /// while the backend lives.
    fn changes(&self) -> BoxStream<'static, DeploymentId>;

    /// The log of one replica: its last `tail` lines, and, with `follow`, what comes after until the
    /// caller drops the stream. `None` if the replica is unknown.
    async fn logs(
        &self,
        replica: &ReplicaId,
        tail: usize,
        follow: bool,
    ) -> Result<Option<BoxStream<'static, std::io::Result<Bytes>>>, BackendError>;

    /// Ends every replica: they drain, and are killed after `patience`.
    async fn shutdown(&self, patience: Duration) -> Result<(), BackendError>;
}
