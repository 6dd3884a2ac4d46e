//! The lease on a deployment: one worker at a time, and a token that unmasks one that was too slow.

use std::time::Duration;

use api::{DeploymentId, Timestamp};

use crate::{Store, StoreError};

/// Grows with each taking of a deployment's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub i64);

/// A worker's hold on one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Who holds it.
    pub owner: String,
    /// The fencing token.
    pub fence: Fence,
    /// Until when, unless renewed.
    pub until: Timestamp,
}

impl Store {
    /// Takes the lease of a deployment if nobody holds it. The fence grows with each taking. `None` if
    /// somebody holds it, or the deployment is gone.
    pub async fn lease_acquire(
        &self,
        deployment: DeploymentId,
        owner: &str,
        hold: Duration,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        todo!("{deployment} {owner} {hold:?} {now:?}")
    }

    /// Holds on for `hold` from now.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if it was taken over.
    pub async fn lease_renew(&self, lease: &Lease, hold: Duration, now: Timestamp) -> Result<Lease, StoreError> {
        todo!("{lease:?} {hold:?} {now:?}")
    }

    /// Lets go. Harmless if it was taken over.
    pub async fn lease_release(&self, lease: &Lease) -> Result<(), StoreError> {
        todo!("{lease:?}")
    }
}
