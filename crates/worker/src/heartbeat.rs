//! The worker's sign of life.

use std::time::Duration;

use api::Timestamp;
use async_trait::async_trait;
use base::Clock;
use store::{Store, StoreError, WorkerRecord};

use crate::jobs::Job;

/// Says in the database that the worker lives.
#[derive(Clone)]
pub(crate) struct Heartbeat {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    /// The worker's name.
    pub(crate) owner: String,
    /// Its backend's scope.
    pub(crate) scope: String,
    /// Where it answers.
    pub(crate) address: String,
    pub(crate) every: Duration,
    /// When others count as gone.
    pub(crate) forget_after: Duration,
}

impl Heartbeat {
    /// Says it once.
    pub(crate) async fn beat(&self) -> Result<(), StoreError> {
        let record = WorkerRecord {
            id: self.owner.clone(),
            scope: self.scope.clone(),
            address: self.address.clone(),
            seen_at: Timestamp::from(self.clock.now()),
        };
        self.store.worker_seen(&record, self.forget_after).await
    }
}

#[async_trait]
impl Job for Heartbeat {
    fn first(&self) -> Duration {
        self.every
    }

    fn pause(&self) -> Duration {
        self.every
    }

    async fn turn(&self) {
        if let Err(error) = self.beat().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the worker could not show that it lives");
        }
    }
}
