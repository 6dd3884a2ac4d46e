//! The lease on a deployment: only one worker holds it at a time, and its token exposes a worker that was too slow.
//!
//! An expired lease still belongs to its owner until another worker takes it: only the next taking fences the owner,
//! not time alone.

#[cfg(test)]
mod tests;

use std::time::Duration;

use api::{DeploymentId, Epoch, Timestamp};

use crate::{
    Store, StoreError,
    row::{Columns as _, clean},
};

/// Increases each time the lease of a deployment is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub i64);

/// The lease of a worker on one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The worker that holds it.
    pub owner: String,
    /// The fencing token.
    pub fence: Fence,
    /// The epoch in which it was taken.
    pub epoch: Epoch,
    /// When it expires, unless it is renewed.
    pub until: Timestamp,
}

impl Store {
    /// Takes the lease of a deployment if nobody holds it. The fence increases with each taking. `None` if a worker
    /// holds it (including this one), or the deployment was removed.
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

    /// Extends the lease to `hold` from now.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the lease was taken over.
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

    /// Releases the lease. Does nothing if it was taken over.
    pub async fn lease_release(&self, lease: &Lease) -> Result<(), StoreError> {
        let release = sqlx::query(
            "UPDATE deployment SET lease_owner = NULL, lease_until = 0 \
             WHERE id = $1 AND fence = $2 AND lease_owner = $3 RETURNING id",
        );
        self.write_one(release.bind(lease.deployment.0).bind(lease.fence.0).bind(clean(&lease.owner))).await?;
        Ok(())
    }
}
