//! Changes of a deployment by workers, each under their lease.

use api::{DeploymentStatus, RevisionNumber, State, Timestamp, event::NewEvent, route::Targets};

use crate::{
    Lease, Store, StoreError, event, route,
    row::{self, Columns as _, clean},
    transaction::Care,
};

impl Store {
    /// For workers: writes status, targets and events in one transaction, under the lease. The version of the targets
    /// increases only if they differ; without targets, they do not change. A deployment that is being deleted keeps the
    /// state `deleting`. `settled_at` is the generation at which the deployment is settled.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the lease was taken over; then nothing was written.
    pub async fn deployment_observed(
        &self,
        lease: &Lease,
        status: &DeploymentStatus,
        targets: Option<&Targets>,
        events: &[NewEvent],
        settled_at: Option<i64>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut sql = self.write(Care::Recoverable).await?;
        let row = sqlx::query(
            "UPDATE deployment SET state = CASE WHEN deleting_since IS NULL THEN $1 ELSE $2 END, \
             serving_revision = $3, settled_generation = $4, status = $5, traffic = $6 \
             WHERE id = $7 AND fence = $8 AND lease_owner = $9 RETURNING deleting_since, spec",
        )
        .bind(status.state.as_str())
        .bind(State::Deleting.as_str())
        .bind(status.serving_revision.map(|RevisionNumber(number)| i64::from(number)))
        .bind(settled_at)
        .bind(row::record(status)?)
        .bind(row::json(&status.traffic)?)
        .bind(lease.deployment.0)
        .bind(lease.fence.0)
        .bind(clean(&lease.owner))
        .fetch_optional(&mut *sql)
        .await?;
        let Some(row) = row else {
            sql.abandon().await?;
            return Err(StoreError::Fenced);
        };
        event::write(&mut sql, lease.deployment, events, now).await?;
        if let Some(targets) = targets {
            let spec = row.record("spec", "deployment's specification")?;
            let deleting = row.maybe_int("deleting_since")?.is_some();
            route::put_targets(&mut sql, lease.deployment, &spec, deleting, targets).await?;
        }
        sql.commit().await?;
        self.announce();
        Ok(())
    }

    /// For workers: the replicas of a deleted deployment have ended. Removes it, its revisions and its route (whose
    /// tombstone remains for the gateways). Its events remain until [`Store::prune`] removes them.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the lease was taken over, or if the deletion was not requested.
    pub async fn deployment_purge(&self, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
        let mut sql = self.write(Care::Recoverable).await?;
        let gone = sqlx::query(
            "DELETE FROM deployment \
             WHERE id = $1 AND fence = $2 AND lease_owner = $3 AND deleting_since IS NOT NULL RETURNING id",
        )
        .bind(lease.deployment.0)
        .bind(lease.fence.0)
        .bind(clean(&lease.owner))
        .fetch_optional(&mut *sql)
        .await?;
        if gone.is_none() {
            sql.abandon().await?;
            return Err(StoreError::Fenced);
        }
        let removed = NewEvent {
            revision: None,
            actor: "worker",
            kind: "deleted",
            message: format!("{} is gone", lease.deployment),
            evidence: serde_json::Value::Null,
        };
        event::write(&mut sql, lease.deployment, &[removed], now).await?;
        route::remove(&mut sql, lease.deployment).await?;
        sqlx::query("INSERT INTO gone (deployment, at) VALUES ($1, $2)")
            .bind(lease.deployment.0)
            .bind(now.0)
            .execute(&mut *sql)
            .await?;
        sql.commit().await?;
        self.announce();
        Ok(())
    }
}
