//! The heartbeat of a worker.

use std::time::Duration;

use api::Timestamp;
use async_trait::async_trait;
use base::Clock;
use store::{Store, StoreError, WorkerRecord};

use crate::jobs::Job;

/// Records in the database that the worker is alive.
#[derive(Clone)]
pub(crate) struct Heartbeat {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    /// The worker's name.
    pub(crate) owner: String,
    /// The scope of its backend.
    pub(crate) scope: String,
    /// The address of its HTTP server.
    pub(crate) address: String,
    pub(crate) every: Duration,
    /// After this time without a heartbeat, other workers count as gone.
    pub(crate) forget_after: Duration,
}

impl Heartbeat {
    /// Writes one heartbeat.
    pub(crate) async fn beat(&self) -> Result<(), StoreError> {
        let record = WorkerRecord {
            id: self.owner.clone(),
            placement: self.store.placement().to_owned(),
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
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot write the heartbeat");
        }
    }
}
