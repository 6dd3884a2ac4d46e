//! Prunes old data from the database. Several workers may do this at the same time.

use std::time::Duration;

use api::Timestamp;
use async_trait::async_trait;
use base::Clock;
use store::{Pruned, Store};

use crate::jobs::{Job, jittered};

/// Prunes the database.
pub(crate) struct Prune {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) interval_ms: u64,
}

#[async_trait]
impl Job for Prune {
    fn pause(&self) -> Duration {
        jittered(self.interval_ms)
    }

    async fn turn(&self) {
        match self.store.prune(Timestamp::from(self.clock.now())).await {
            Ok(pruned) if pruned == Pruned::default() => {}
            Ok(pruned) => tracing::info!(?pruned, "pruned old data from the database"),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot prune old data");
            }
        }
    }
}
