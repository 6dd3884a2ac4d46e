//! The task queue on SQL.

use std::time::Duration;

use api::DeploymentId;
use async_trait::async_trait;
use base::Clock;
use queue::{QueueError, Receipt, Task, TaskQueue};

use crate::Store;

/// [`TaskQueue`] in the database's own `task` table: one row a deployment, so waking is an upsert and can
/// be part of the change's own transaction.
#[derive(Clone, Debug)]
pub struct SqlTaskQueue {
    store: Store,
    clock: Clock,
}

impl SqlTaskQueue {
    /// The queue of this database.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }
}

#[async_trait]
impl TaskQueue for SqlTaskQueue {
    async fn wake(&self, deployment: DeploymentId, delay: Duration) -> Result<(), QueueError> {
        todo!("{deployment} {delay:?}")
    }

    async fn next(&self, lease: Duration) -> Result<Option<Task>, QueueError> {
        todo!("{lease:?}")
    }

    async fn renew(&self, receipt: &Receipt, lease: Duration) -> Result<bool, QueueError> {
        todo!("{receipt:?} {lease:?}")
    }

    async fn ack(&self, receipt: &Receipt) -> Result<(), QueueError> {
        todo!("{receipt:?}")
    }
}
