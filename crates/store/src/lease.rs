//! The lease on a deployment: only one worker holds it at a time, and its token exposes a worker that was too slow.
//!
//! An expired lease still belongs to its owner until another worker takes it: only the next taking fences the owner,
//! not time alone.
//!
//! A worker takes leases of its own placement only. Workers of versions without placements take each lease that is free
//! or expired, by `lease_owner IS NULL OR lease_until <= now`. So outside of [`DEFAULT_PLACEMENT`] the owner is never NULL,
//! and [`GUARD`] is added to the end that is written.

#[cfg(test)]
mod tests;

use std::time::Duration;

use api::{DeploymentId, Epoch, Timestamp, deployment::DEFAULT_PLACEMENT};

use crate::{
    Sql, Store, StoreError,
    row::{Columns as _, clean},
};

/// A time that no clock reaches, and that can be added to any time that a clock shows.
const GUARD: i64 = 1 << 60;

/// The owner and the end of a lease that nobody holds.
pub(crate) fn free(placement: &str) -> (Option<&'static str>, i64) {
    if placement == DEFAULT_PLACEMENT { (None, 0) } else { (Some(""), GUARD) }
}

/// Ends all leases.
pub(crate) async fn free_all(sql: &mut Sql) -> Result<(), StoreError> {
    let (owner, until) = free("");
    sqlx::query(
        "UPDATE deployment SET fence = fence + 1, \
         lease_owner = CASE WHEN placement = $1 THEN NULL ELSE $2 END, lease_until = CASE WHEN placement = $1 THEN 0 ELSE $3 END",
    )
    .bind(DEFAULT_PLACEMENT)
    .bind(owner)
    .bind(until)
    .execute(sql)
    .await?;
    Ok(())
}

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
    /// holds it (including this one), or the deployment was removed or has another placement.
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
             WHERE id = $3 AND placement = $5 AND (lease_owner IS NULL OR lease_until <= $4) \
             RETURNING fence, (SELECT value FROM property WHERE name = 'epoch') AS epoch",
        );
        let (_, guard) = free(&self.placement);
        let taking = taking.bind(clean(owner)).bind(until.0 + guard).bind(deployment.0).bind(now.0 + guard);
        let row = self.write_one(taking.bind(clean(&self.placement))).await?;
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
        let (_, guard) = free(&self.placement);
        let renewal =
            renewal.bind(until.0 + guard).bind(lease.deployment.0).bind(lease.fence.0).bind(clean(&lease.owner));
        match self.write_one(renewal).await? {
            Some(_) => Ok(Lease { until, ..lease.clone() }),
            None => Err(StoreError::Fenced),
        }
    }

    /// Releases the lease. Does nothing if it was taken over.
    pub async fn lease_release(&self, lease: &Lease) -> Result<(), StoreError> {
        let release = sqlx::query(
            "UPDATE deployment SET lease_owner = $4, lease_until = $5 \
             WHERE id = $1 AND fence = $2 AND lease_owner = $3 RETURNING id",
        );
        let (owner, until) = free(&self.placement);
        let release = release.bind(lease.deployment.0).bind(lease.fence.0).bind(clean(&lease.owner));
        self.write_one(release.bind(owner).bind(until)).await?;
        Ok(())
    }
}
