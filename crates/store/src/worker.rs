//! Which workers live, where they answer, and whose machine the replicas are on.

use std::time::Duration;

use api::Timestamp;

use crate::{Store, StoreError};

/// A worker that was seen lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its name, unique for each start.
    pub id: String,
    /// Its backend's scope.
    pub scope: String,
    /// `host:port` of its own HTTP server, which answers for logs.
    pub address: String,
    /// When it was last seen.
    pub seen_at: Timestamp,
}

impl Store {
    /// Says that a worker lives. Forgets those not seen for `forget_after`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `other_scope` if a worker of another scope was seen within `forget_after`:
    /// two machines' process backends on one database would each start every replica.
    pub async fn worker_seen(&self, worker: &WorkerRecord, forget_after: Duration) -> Result<(), StoreError> {
        todo!("{worker:?} {forget_after:?}")
    }

    /// The workers seen since `since`.
    pub async fn worker_list(&self, since: Timestamp) -> Result<Vec<WorkerRecord>, StoreError> {
        todo!("{since:?}")
    }

    /// A worker ends in good order.
    pub async fn worker_gone(&self, id: &str) -> Result<(), StoreError> {
        todo!("{id}")
    }
}
