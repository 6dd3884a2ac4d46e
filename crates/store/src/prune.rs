//! Removes old data: everything that would otherwise grow with time.
//!
//! Each step uses an index to find data over its limit, and deletes it in small transactions. So it costs little if
//! there is little to delete, and other writers do not wait long. Two concurrent runs, or one that dies halfway, do no
//! harm: the next run finds the rest.
//!
//! **Invariant:** nothing that an existing deployment needs is removed, except its oldest events.

use std::time::Duration;

use api::{DeploymentId, Timestamp};

use crate::{Store, StoreError, counter::Counter, idempotency, row::Columns as _, transaction::Care};

/// The number of newest events that are kept for a deployment.
const EVENTS_KEPT: i64 = 1_000;
/// How long the events of a removed deployment are kept.
const STORY_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long tombstones are kept for gateways. A gateway that was disconnected for longer loads the whole table again.
const TOMBSTONES_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How many deployments are processed at once.
const BATCH: i64 = 50;

/// The numbers of removed items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Events.
    pub events: u64,
    /// Tombstones of routes.
    pub tombstones: u64,
    /// `Idempotency-Key`s.
    pub keys: u64,
}

fn before(now: Timestamp, time: Duration) -> i64 {
    now.0.saturating_sub(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

impl Store {
    /// Removes: of each deployment, all events but the newest 1,000; of a removed deployment, all events after 30 days
    /// and the tombstone of its route after a day; `Idempotency-Key`s after a day. Any process may call it
    /// periodically.
    pub async fn prune(&self, now: Timestamp) -> Result<Pruned, StoreError> {
        Ok(Pruned {
            // First, because the next step removes the rows by which tombstones are found.
            tombstones: self.prune_tombstones(before(now, TOMBSTONES_KEPT)).await?,
            events: self.prune_stories(before(now, STORY_KEPT)).await? + self.prune_events().await?,
            keys: self.prune_keys(now).await?,
        })
    }

    async fn prune_tombstones(&self, until: i64) -> Result<u64, StoreError> {
        const OLD: &str = "SELECT MAX(version) AS newest FROM route \
             WHERE route IS NULL AND deployment IN (SELECT deployment FROM gone WHERE at <= $1)";
        let look = sqlx::query(OLD).bind(until).fetch_one(&mut *self.read().await?).await?;
        if look.maybe_int("newest")?.is_none() {
            return Ok(0);
        }
        let mut sql = self.write(Care::Recoverable).await?;
        // With two concurrent runs, the second one sees what the first has left.
        Counter::RoutePruned.take(&mut sql, 0).await?;
        let newest = sqlx::query(OLD).bind(until).fetch_one(&mut *sql).await?.maybe_int("newest")?;
        let deleted = sqlx::query(
            "DELETE FROM route WHERE route IS NULL AND deployment IN (SELECT deployment FROM gone WHERE at <= $1)",
        )
        .bind(until)
        .execute(&mut *sql)
        .await?
        .rows_affected();
        // Clocks differ between machines, so an older version may expire after a newer one.
        sqlx::query("UPDATE counter SET value = $1 WHERE name = 'route_pruned' AND value < $1")
            .bind(newest.unwrap_or(0))
            .execute(&mut *sql)
            .await?;
        sql.commit().await?;
        Ok(deleted)
    }

    async fn prune_stories(&self, until: i64) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let found = sqlx::query("SELECT deployment FROM gone WHERE at <= $1 ORDER BY at LIMIT $2")
                .bind(until)
                .bind(BATCH)
                .fetch_all(&mut *self.read().await?)
                .await?;
            for row in &found {
                let id = DeploymentId(row.int("deployment")?);
                let mut sql = self.write(Care::Recoverable).await?;
                let events = sqlx::query("DELETE FROM event WHERE deployment = $1").bind(id.0);
                deleted += events.execute(&mut *sql).await?.rows_affected();
                sqlx::query("DELETE FROM gone WHERE deployment = $1").bind(id.0).execute(&mut *sql).await?;
                sql.commit().await?;
            }
            if found.is_empty() {
                return Ok(deleted);
            }
        }
    }

    async fn prune_events(&self) -> Result<u64, StoreError> {
        let mut deleted = 0;
        let mut after = 0;
        loop {
            let found = sqlx::query(
                "SELECT deployment FROM event WHERE deployment > $1 \
                 GROUP BY deployment HAVING COUNT(*) > $2 ORDER BY deployment LIMIT $3",
            )
            .bind(after)
            .bind(EVENTS_KEPT)
            .bind(BATCH)
            .fetch_all(&mut *self.read().await?)
            .await?;
            for row in &found {
                after = row.int("deployment")?;
                let mut sql = self.write(Care::Recoverable).await?;
                let oldest = sqlx::query(
                    "DELETE FROM event WHERE deployment = $1 AND id <= \
                     (SELECT id FROM event WHERE deployment = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
                )
                .bind(after)
                .bind(EVENTS_KEPT);
                deleted += oldest.execute(&mut *sql).await?.rows_affected();
                sql.commit().await?;
            }
            if found.is_empty() {
                return Ok(deleted);
            }
        }
    }

    async fn prune_keys(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut sql = self.write(Care::Recoverable).await?;
        let deleted = idempotency::forget(&mut sql, now).await?;
        sql.commit().await?;
        Ok(deleted)
    }
}
