//! The live workers, their addresses, and the scope of their replicas.

use std::time::Duration;

use api::{Timestamp, deployment::DEFAULT_PLACEMENT};
use sqlx::any::AnyRow;

use crate::{
    Store, StoreError,
    counter::Counter,
    row::{Columns as _, clean},
    transaction::Care,
};

/// A worker that was seen recently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its name, unique for each start.
    pub id: String,
    /// The placement whose deployments it works on.
    pub placement: String,
    /// The scope of its backend.
    pub scope: String,
    /// `host:port` of its HTTP server, which provides logs.
    pub address: String,
    /// When it was last seen.
    pub seen_at: Timestamp,
}

impl Store {
    /// Records that a worker is alive. Removes workers not seen for `forget_after`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `other_scope` if a worker that was seen within `forget_after` cannot work beside it: two
    /// scopes of one placement would each start every replica; two placements in one scope would each take the
    /// replicas of the other for strays.
    pub async fn worker_seen(&self, worker: &WorkerRecord, forget_after: Duration) -> Result<(), StoreError> {
        let forgotten = worker.seen_at.0.saturating_sub(i64::try_from(forget_after.as_micros()).unwrap_or(i64::MAX));
        let mut sql = self.write(Care::Recoverable).await?;
        // Of two concurrent calls, the second one sees the first.
        Counter::Worker.take(&mut sql, 1).await?;
        // One without a placement is of a version that knows none, and takes no other scope beside its own.
        let other = sqlx::query(
            "SELECT id, placement, scope, address FROM worker WHERE id <> $1 AND seen_at > $2 \
             AND (CASE WHEN scope = $3 THEN COALESCE(placement, $5) <> $4 ELSE COALESCE(placement, $4) = $4 END) \
             ORDER BY id LIMIT 1",
        )
        .bind(clean(&worker.id))
        .bind(forgotten)
        .bind(clean(&worker.scope))
        .bind(clean(&worker.placement))
        .bind(DEFAULT_PLACEMENT)
        .fetch_optional(&mut *sql)
        .await?;
        if let Some(other) = other {
            let reason = conflict(worker, &other, forget_after)?;
            sql.abandon().await?;
            return Err(StoreError::Conflict { code: "other_scope", reason });
        }
        sqlx::query("DELETE FROM worker WHERE seen_at <= $1").bind(forgotten).execute(&mut *sql).await?;
        sqlx::query(
            "INSERT INTO worker (id, scope, address, seen_at, placement) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (id) DO UPDATE SET scope = excluded.scope, address = excluded.address, \
             seen_at = excluded.seen_at, placement = excluded.placement",
        )
        .bind(clean(&worker.id))
        .bind(clean(&worker.scope))
        .bind(clean(&worker.address))
        .bind(worker.seen_at.0)
        .bind(clean(&worker.placement))
        .execute(&mut *sql)
        .await?;
        sql.commit().await
    }

    /// The workers seen since `since`, latest first.
    pub async fn worker_list(&self, since: Timestamp) -> Result<Vec<WorkerRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, placement, scope, address, seen_at FROM worker WHERE seen_at >= $1 ORDER BY seen_at DESC, id LIMIT 1000",
        )
        .bind(since.0)
        .fetch_all(&mut *self.read().await?)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(WorkerRecord {
                    id: row.text("id")?,
                    placement: row.maybe_text("placement")?.unwrap_or_else(|| DEFAULT_PLACEMENT.to_owned()),
                    scope: row.text("scope")?,
                    address: row.text("address")?,
                    seen_at: Timestamp(row.int("seen_at")?),
                })
            })
            .collect()
    }

    /// Unregisters a worker at shutdown.
    pub async fn worker_gone(&self, id: &str) -> Result<(), StoreError> {
        self.write_one(sqlx::query("DELETE FROM worker WHERE id = $1 RETURNING id").bind(clean(id))).await?;
        Ok(())
    }
}

/// Why `worker` cannot work beside `other`, and what to do.
fn conflict(worker: &WorkerRecord, other: &AnyRow, forget_after: Duration) -> Result<String, StoreError> {
    let WorkerRecord { placement, scope, .. } = worker;
    let (id, address) = (other.text("id")?, other.text("address")?);
    let (other_scope, other_placement) = (other.text("scope")?, other.maybe_text("placement")?);
    let wait = format!("stop that one and wait {} s", forget_after.as_secs());
    Ok(match other_placement {
        Some(other) if other_scope == *scope => format!(
            "worker {id} at {address} runs replicas of the placement `{other}` in `{scope}`, and this one would run those of \
             `{placement}` there; give each placement its own place (data_dir), or {wait}"
        ),
        None if *placement != DEFAULT_PLACEMENT => format!(
            "worker {id} at {address} is of an older version, which knows no placements, and this one's is `{placement}`; \
             upgrade that one, or {wait}"
        ),
        _ => format!(
            "worker {id} at {address} runs the replicas of the placement `{placement}` in `{other_scope}`, this one would in \
             `{scope}`; {wait}, give each its own placement (worker.placement), or its own database"
        ),
    })
}
