//! The seam that wakes workers.
//!
//! A task is a hint: "look at this deployment". Losing, repeating or reordering any of them costs latency
//! only, because workers also scan. So a queue need not be exact; it must be quick and never lie about
//! what it holds: a task that was taken and not acknowledged comes back.

pub mod conformance;

use std::time::Duration;

use api::DeploymentId;
use async_trait::async_trait;

/// A task that a worker has taken: it is nobody else's until `lease` has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which deployment to look at.
    pub deployment: DeploymentId,
    /// Proof of the taking. Acknowledging or renewing with one that was taken over does nothing.
    pub receipt: Receipt,
}

/// A fencing token of one taking of one task. Opaque to workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// Why a queue did not answer. Asking again may work.
#[derive(Debug, thiserror::Error)]
#[error("the task queue ({queue}) is unavailable")]
pub struct QueueError {
    /// Its kind, such as `sql`.
    pub queue: &'static str,
    /// What happened.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Wakes workers. Deliveries are at least once; one deployment is one task however often it is woken.
#[async_trait]
pub trait TaskQueue: Send + Sync + 'static {
    /// Asks for a look at a deployment after `delay`. Waking one that waits already keeps the earlier time;
    /// waking one that a worker holds makes it come again after that worker is done.
    async fn wake(&self, deployment: DeploymentId, delay: Duration) -> Result<(), QueueError>;

    /// The next task that is due, held for `lease`. Waits for one, at most about a second; then `None`.
    /// A caller may drop the future at any moment: what it was about to get is due again at the latest when
    /// this handle is asked again.
    async fn next(&self, lease: Duration) -> Result<Option<Task>, QueueError>;

    /// Holds a task for `lease` from now on. `false` if it was ended or taken over: stop working on it.
    async fn renew(&self, receipt: &Receipt, lease: Duration) -> Result<bool, QueueError>;

    /// Ends a task. One that was woken meanwhile stays in the queue and is due when that asked for it: at
    /// once, or after its delay.
    async fn ack(&self, receipt: &Receipt) -> Result<(), QueueError>;
}
