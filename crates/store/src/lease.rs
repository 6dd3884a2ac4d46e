//! The lease on a deployment: one worker at a time, and a token that unmasks one that was too slow.
//!
//! A lease that ran out is still its owner's until somebody takes it: time alone fences nobody, the next
//! taking does.

#[cfg(test)]
mod tests;

use std::time::Duration;

use api::{DeploymentId, Epoch, Timestamp};

use crate::{
    Store, StoreError,
    row::{Columns as _, clean},
};

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
    /// The epoch that it was taken in.
    pub epoch: Epoch,
    /// Until when, unless renewed.
    pub until: Timestamp,
}

impl Store {
    /// Takes the lease of a deployment if nobody holds it. The fence grows with each taking. `None` if
    /// somebody holds it (this owner too), or the deployment is gone.
    pub async fn lease_acquire(
        &self,
        deployment: DeploymentId,
        owner: &str,
        hold: Duration,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        let until = now.after(hold);
        let taking = sqlx::query(
            "UPDATE deployment SET fence = fence + 1, lease_owner = $1, lease_until = $2 \
             WHERE id = $3 AND (lease_owner IS NULL OR lease_until <= $4) \
             RETURNING fence, (SELECT value FROM property WHERE name = 'epoch') AS epoch",
        );
        let row = self.write_one(taking.bind(clean(owner)).bind(until.0).bind(deployment.0).bind(now.0)).await?;
        row.map(|row| {
            let (fence, epoch) = (Fence(row.int("fence")?), Epoch(row.text("epoch")?));
            Ok(Lease { deployment, owner: owner.to_owned(), fence, epoch, until })
        })
        .transpose()
    }

    /// Holds on for `hold` from now.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if it was taken over.
    pub async fn lease_renew(&self, lease: &Lease, hold: Duration, now: Timestamp) -> Result<Lease, StoreError> {
        let until = now.after(hold);
        let renewal = sqlx::query(
            "UPDATE deployment SET lease_until = $1 WHERE id = $2 AND fence = $3 AND lease_owner = $4 RETURNING fence",
        );
        let renewal = renewal.bind(until.0).bind(lease.deployment.0).bind(lease.fence.0).bind(clean(&lease.owner));
        match self.write_one(renewal).await? {
            Some(_) => Ok(Lease { until, ..lease.clone() }),
            None => Err(StoreError::Fenced),
        }
    }

    /// Lets go. Harmless if it was taken over.
    pub async fn lease_release(&self, lease: &Lease) -> Result<(), StoreError> {
        let release = sqlx::query(
            "UPDATE deployment SET lease_owner = NULL, lease_until = 0 \
             WHERE id = $1 AND fence = $2 AND lease_owner = $3 RETURNING id",
        );
        self.write_one(release.bind(lease.deployment.0).bind(lease.fence.0).bind(clean(&lease.owner))).await?;
        Ok(())
    }
}
