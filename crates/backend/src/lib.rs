//! The trait for places where replicas run, and its implementations.
//!
//! A backend gets the wanted number of replicas of a revision, and reports the actual ones. It decides nothing about
//! traffic, and it stores nothing that it cannot read back from the machine: a new process finds the replicas of an old
//! one.

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

/// Why a backend failed, grouped by what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A retry may work.
    #[error("the {backend} backend is unavailable")]
    Unavailable {
        /// The kind of backend.
        backend: &'static str,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// A person must change the deployment.
    #[error("the {backend} backend rejects this deployment: {reason}")]
    Rejected {
        /// The kind of backend.
        backend: &'static str,
        /// A sentence: what is wrong and what to do.
        reason: String,
    },
    /// Another worker has taken the deployment over; stop working on it.
    #[error("this worker's lease was taken over (fence {given}, newest {newest})")]
    Fenced {
        /// The caller's fencing token.
        given: i64,
        /// The highest fence that the backend has seen.
        newest: i64,
    },
}

/// One replica, as its backend observes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The name of the replica.
    pub id: ReplicaId,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The revision.
    pub revision: RevisionNumber,
    /// The state.
    pub state: ReplicaState,
    /// The address for requests; `None` if it has none yet, such as a pending pod.
    pub address: Option<Address>,
    /// When its current process started.
    pub started_at: Option<Timestamp>,
    /// How often it was restarted after it ended by itself.
    pub restarts: u32,
    /// How its last process ended, if it ended by itself. It stays after the restart until the replica is ready.
    pub failure: Option<Failure>,
    /// When a replica in back-off is due: then call [`Backend::ensure`], unless the backend [restarts replicas
    /// itself](Capabilities::restarts).
    pub retry_at: Option<Timestamp>,
    /// The artefact that it serves, once it has reported it.
    pub artifact: Option<String>,
    /// The files of the artefact, once it has reported them. Replicas of older versions never do.
    pub files: Option<FoundFiles>,
    /// Facts for the user, such as limits that this machine cannot enforce.
    pub notes: Vec<String>,
    /// Who started it. `None` for a version without epochs (0.1.0).
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
    /// Whether a restart cannot help until a person changes something.
    pub permanent: bool,
}

/// The capabilities of a backend. The caller must do what a backend cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// It ends exactly the replicas in `retire` of [`Backend::ensure`]. Otherwise they are a preference, and it may end
    /// other replicas of that revision instead.
    pub exact_victims: bool,
    /// Who restarts a replica that ended by itself.
    pub restarts: Restarts,
}

/// Who restarts a replica that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarts {
    /// The caller, with [`Backend::ensure`] after [`Replica::retry_at`].
    Caller,
    /// The backend. [`Replica::retry_at`] is only information.
    Backend,
}

/// A place where replicas can run.
///
/// Several databases may use one place, one after the other or at the same time. A call with a [`Fence`] affects only
/// the replicas of its epoch. Other replicas, even of the same deployment and revision, keep their names and continue
/// to run.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The kind and the place, such as `process:3f2a`. The workers of one database share one scope.
    fn scope(&self) -> String;

    /// The capabilities of this backend. They never change.
    fn capabilities(&self) -> Capabilities;

    /// Runs `want` replicas of `revision`. Tells the replicas in `retire` to drain and stop. Then it starts missing
    /// replicas, restarts those whose back-off is over, and tells surplus ones to stop: first those that are not ready,
    /// then those with the highest ordinals. Returns without waiting for readiness. Repeated calls are harmless:
    /// replicas in `retire` that are gone or already stopping are skipped. Retire only replicas that were observed
    /// under the current lease. `fence` is the lease of the caller. A fence that is older than the highest one seen of
    /// its epoch is refused, and so is a fence of an epoch that a later one continues.
    async fn ensure(
        &self,
        revision: &Revision,
        want: u32,
        retire: &[ReplicaId],
        fence: &Fence,
    ) -> Result<(), BackendError>;

    /// Marks replicas of a deployment as those of the fence's epoch. `replicas` are names, each with the creation time
    /// of its revision. A replica that is gone is skipped.
    async fn take_over(
        &self,
        deployment: DeploymentId,
        replicas: &[(ReplicaId, Timestamp)],
        fence: &Fence,
    ) -> Result<(), BackendError>;

    /// The replicas with one deployment number, of all epochs, sorted by name.
    async fn observe(&self, deployment: DeploymentId) -> Result<Vec<Replica>, BackendError>;

    /// All replicas, sorted by name.
    async fn observe_all(&self) -> Result<Vec<Replica>, BackendError>;

    /// Tells every replica of a deployment (or of one of its revisions) to drain and stop, and removes it when it has
    /// ended. Call it until `observe` returns nothing. The log files are kept for some time.
    async fn remove(
        &self,
        deployment: DeploymentId,
        revision: Option<RevisionNumber>,
        fence: &Fence,
    ) -> Result<(), BackendError>;

    /// Restarts the replicas of a deployment, of this epoch, that ended by themselves and whose back-off is over, with
    /// their last known specification. It is for a worker that cannot ask its database: it changes nothing else, so it
    /// needs no fence. Returns when the next replica is due, if any.
    async fn revive(&self, deployment: DeploymentId, epoch: &Epoch) -> Result<Option<Timestamp>, BackendError>;

    /// Tells a stray replica to drain and stop, of any epoch, because a person asked for it. Does nothing if it belongs
    /// to the epoch `ours`, or does not exist.
    async fn end_stray(&self, replica: &ReplicaId, ours: &Epoch) -> Result<(), BackendError>;

    /// The deployments whose replicas have changed by themselves: became ready, ended. May repeat; never ends while the
    /// backend exists.
    fn changes(&self) -> BoxStream<'static, DeploymentId>;

    /// The log of one replica: its last `tail` lines, and, with `follow`, new output until the caller drops the stream.
    /// `None` if the replica is unknown.
    async fn logs(
        &self,
        replica: &ReplicaId,
        tail: usize,
        follow: bool,
    ) -> Result<Option<BoxStream<'static, std::io::Result<Bytes>>>, BackendError>;

    /// Ends every replica of this epoch and starts no more: they drain, and are killed after `patience`.
    async fn shutdown(&self, patience: Duration, epoch: &Epoch) -> Result<(), BackendError>;
}
