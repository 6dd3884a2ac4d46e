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
    DeploymentId, Epoch, Fence, Origin, ReplicaId, Revision, RevisionNumber, Timestamp,
    deployment::StatusError,
    replica::{Address, ReplicaState},
    revision::FoundFiles,
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
    /// Where it takes requests; `None` while it has no address, as a pod that waits for a machine has none.
    pub address: Option<Address>,
    /// When its present process started.
    pub started_at: Option<Timestamp>,
    /// How often it was started again after it ended by itself.
    pub restarts: u32,
    /// How its last process ended, if it ended by itself. Stays after the restart until it is ready.
    pub failure: Option<Failure>,
    /// When a replica that backs off will be due: call [`Backend::ensure`] then, unless the backend
    /// [restarts replicas itself](Capabilities::restarts).
    pub retry_at: Option<Timestamp>,
    /// The artefact that it serves, once it said so.
    pub artifact: Option<String>,
    /// The files of the artefact, once it said so. Replicas of older versions never do.
    pub files: Option<FoundFiles>,
    /// What a user should know, such as limits that this machine cannot enforce.
    pub notes: Vec<String>,
    /// Who started it. `None` if that was a version without epochs (0.1.0).
    pub origin: Option<Origin>,
}

impl Replica {
    /// Whether it was started, or taken over, in this epoch.
    #[must_use]
    pub fn is_of(&self, epoch: &Epoch) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.epoch == *epoch)
    }

    /// Whether requests can be sent to it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == ReplicaState::Ready && self.address.is_some()
    }
}

/// How a replica ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened, with the last lines of the log.
    pub error: StatusError,
    /// Whether starting it again is hopeless until a person changes something.
    pub permanent: bool,
}

/// What a backend can do, and a caller must do where it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// It ends exactly the replicas that [`Backend::ensure`] is told to retire. Otherwise they are a wish, and it may end
    /// others of that revision in their place.
    pub exact_victims: bool,
    /// Who starts a replica again that ended by itself.
    pub restarts: Restarts,
}

/// Who starts a replica again that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarts {
    /// The caller, by [`Backend::ensure`] once its [`Replica::retry_at`] has come.
    Caller,
    /// The backend. [`Replica::retry_at`] is only for people to read.
    Backend,
}

/// A place where replicas can run.
///
/// Several databases may use one place, one after the other or at the same time. A call with a [`Fence`] concerns the
/// replicas of its epoch and no others, even those of the same deployment and revision: they keep their names and run on.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Names the kind and the place, such as `process:3f2a`. Workers of one database share one scope.
    fn scope(&self) -> String;

    /// What this backend can do. The same for as long as it lives.
    fn capabilities(&self) -> Capabilities;

    /// Makes `want` replicas of `revision` run. Tells those that `retire` names to drain and end; then starts missing ones,
    /// starts again those whose back-off has passed, and tells surplus ones to end: those that are not ready first, then the
    /// last by their numbers. Returns without waiting for readiness. Calling it again is harmless: one that is gone or told
    /// to end already is passed over. Name only replicas that were observed under the present lease.
    /// `fence` is the caller's lease; one that is older than the newest seen of its epoch is refused, and so is any of an
    /// epoch that a later one continues.
    async fn ensure(
        &self,
        revision: &Revision,
        want: u32,
        retire: &[ReplicaId],
        fence: &Fence,
    ) -> Result<(), BackendError>;

    /// Marks replicas of a deployment as those of the fence's epoch: `replicas` are names, each with the time at which its
    /// revision was made. A replica that is gone is left out.
    async fn take_over(
        &self,
        deployment: DeploymentId,
        replicas: &[(ReplicaId, Timestamp)],
        fence: &Fence,
    ) -> Result<(), BackendError>;

    /// What runs under one deployment's number, whoever started it, in the order of the replicas' names.
    async fn observe(&self, deployment: DeploymentId) -> Result<Vec<Replica>, BackendError>;

    /// What runs at all, in the order of the replicas' names.
    async fn observe_all(&self) -> Result<Vec<Replica>, BackendError>;

    /// Tells every replica of a deployment (or of just one of its revisions) to drain and end, and forgets
    /// it when it has. Call it until `observe` shows nothing. Its log files are kept a while.
    async fn remove(
        &self,
        deployment: DeploymentId,
        revision: Option<RevisionNumber>,
        fence: &Fence,
    ) -> Result<(), BackendError>;

    /// Starts again those replicas of a deployment, of this epoch, that ended by themselves and whose back-off has passed, as
    /// they were last asked for. For a worker that cannot ask its database: nothing else is changed, so it needs no fence.
    /// Gives when the next one is due, if any is.
    async fn revive(&self, deployment: DeploymentId, epoch: &Epoch) -> Result<Option<Timestamp>, BackendError>;

    /// A person's order: tells a replica to drain and end, whoever started it. Does nothing to one of the epoch `ours`, and
    /// nothing if there is none of that name.
    async fn end_stray(&self, replica: &ReplicaId, ours: &Epoch) -> Result<(), BackendError>;

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

    /// Ends every replica of this epoch and starts no more: they drain, and are killed after `patience`.
    async fn shutdown(&self, patience: Duration, epoch: &Epoch) -> Result<(), BackendError>;
}
