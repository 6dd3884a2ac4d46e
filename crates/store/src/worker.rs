//! The live workers, their addresses, and the scope of their replicas.

use std::time::Duration;

use api::Timestamp;

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
    /// [`StoreError::Conflict`] `other_scope` if a worker of another scope was seen within `forget_after`: the process
    /// backends of two machines on one database would each start every replica.
    pub async fn worker_seen(&self, worker: &WorkerRecord, forget_after: Duration) -> Result<(), StoreError> {
        let forgotten = worker.seen_at.0.saturating_sub(i64::try_from(forget_after.as_micros()).unwrap_or(i64::MAX));
        let mut sql = self.write(Care::Recoverable).await?;
        // Of two concurrent calls, the second one sees the first.
        Counter::Worker.take(&mut sql, 1).await?;
        let other = sqlx::query(
            "SELECT id, scope, address FROM worker WHERE scope <> $1 AND id <> $2 AND seen_at > $3 LIMIT 1",
        )
        .bind(clean(&worker.scope))
        .bind(clean(&worker.id))
        .bind(forgotten)
        .fetch_optional(&mut *sql)
        .await?;
        if let Some(other) = other {
            let (id, scope, address) = (other.text("id")?, other.text("scope")?, other.text("address")?);
            sql.abandon().await?;
            return Err(StoreError::Conflict {
                code: "other_scope",
                reason: format!(
                    "worker {id} at {address} runs this database's replicas in `{scope}`, this one would in `{}`; \
                     stop that one and wait {} s, or give each its own database",
                    worker.scope,
                    forget_after.as_secs()
                ),
            });
        }
        sqlx::query("DELETE FROM worker WHERE seen_at <= $1").bind(forgotten).execute(&mut *sql).await?;
        sqlx::query(
            "INSERT INTO worker (id, scope, address, seen_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET scope = excluded.scope, address = excluded.address, seen_at = excluded.seen_at",
        )
        .bind(clean(&worker.id))
        .bind(clean(&worker.scope))
        .bind(clean(&worker.address))
        .bind(worker.seen_at.0)
        .execute(&mut *sql)
        .await?;
        sql.commit().await
    }

    /// The workers seen since `since`, latest first.
    pub async fn worker_list(&self, since: Timestamp) -> Result<Vec<WorkerRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, scope, address, seen_at FROM worker WHERE seen_at >= $1 ORDER BY seen_at DESC, id LIMIT 1000",
        )
        .bind(since.0)
        .fetch_all(&mut *self.read().await?)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(WorkerRecord {
                    id: row.text("id")?,
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
