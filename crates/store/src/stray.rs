//! Stray replicas: the ones that workers have seen, and the ones that a person wants to end.

use api::{DeploymentId, ReplicaId, Timestamp, event::NewEvent, stray::Stray};
use sqlx::any::AnyRow;

use crate::{
    Idempotent, Sql, Store, StoreError,
    counter::Counter,
    event, idempotency,
    row::{self, Columns as _, clean},
    transaction::Care,
};

impl Store {
    /// All strays, sorted by name.
    pub async fn stray_list(&self) -> Result<Vec<Stray>, StoreError> {
        let rows = sqlx::query("SELECT since, ending, stray FROM stray ORDER BY replica, scope LIMIT 10000")
            .fetch_all(&mut *self.read().await?)
            .await?;
        rows.iter().map(read).collect()
    }

    /// For workers: replaces the list of strays of their scope. Writes only differences, and returns the strays with
    /// the requests of people; a new stray gets `now` as `since`.
    pub async fn strays_seen(&self, scope: &str, seen: &[Stray], now: Timestamp) -> Result<Vec<Stray>, StoreError> {
        let known = of_scope(&mut *self.read().await?, scope).await?;
        let merged = merge(seen, &known, now);
        if merged == known {
            return Ok(known);
        }
        let mut sql = self.write(Care::Recoverable).await?;
        // Of two workers of one scope, the second sees what the first has written. A person may have requested an end in the
        // meantime; one who requests it now waits.
        Counter::Worker.take(&mut sql, 1).await?;
        sqlx::query("UPDATE stray SET ending = ending WHERE scope = $1").bind(clean(scope)).execute(&mut *sql).await?;
        let known = of_scope(&mut sql, scope).await?;
        let merged = merge(seen, &known, now);
        sqlx::query("DELETE FROM stray WHERE scope = $1").bind(clean(scope)).execute(&mut *sql).await?;
        for stray in &merged {
            sqlx::query("INSERT INTO stray (scope, replica, since, ending, stray) VALUES ($1, $2, $3, $4, $5)")
                .bind(clean(scope))
                .bind(clean(&stray.replica.0))
                .bind(stray.since.0)
                .bind(i64::from(stray.ending))
                .bind(row::record(stray)?)
                .execute(&mut *sql)
                .await?;
        }
        sql.commit().await?;
        Ok(merged)
    }

    /// A person requests the end of strays: workers end them at their next scan.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if one does not exist: then none is ended.
    pub async fn strays_end(&self, replicas: &[ReplicaId]) -> Result<(), StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        for replica in replicas {
            let marked = sqlx::query("UPDATE stray SET ending = 1 WHERE replica = $1 RETURNING replica")
                .bind(clean(&replica.0))
                .fetch_all(&mut *sql)
                .await?;
            if marked.is_empty() {
                sql.abandon().await?;
                return Err(StoreError::NotFound { what: format!("a stray replica `{replica}`") });
            }
        }
        sql.commit().await
    }

    /// Writes an event with the id of a deployment that this database may not know. `key` identifies it: the same key
    /// within a day writes nothing.
    pub async fn event_of_stray(
        &self,
        deployment: DeploymentId,
        key: &str,
        event: NewEvent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut sql = self.write(Care::Recoverable).await?;
        // No client's key has a control character, so none is the same.
        let key = Idempotent { key: format!("\u{1}stray:{key}"), payload: String::new() };
        if idempotency::claim(&mut sql, &key, deployment, now).await?.is_some() {
            return sql.abandon().await;
        }
        event::write(&mut sql, deployment, &[event], now).await?;
        sql.commit().await
    }
}

async fn of_scope(sql: &mut Sql, scope: &str) -> Result<Vec<Stray>, StoreError> {
    let rows = sqlx::query("SELECT since, ending, stray FROM stray WHERE scope = $1")
        .bind(clean(scope))
        .fetch_all(sql)
        .await?;
    let mut strays = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    // Not by the database, whose collation may put names in another order than `merge` does.
    strays.sort_by(|a, b| a.replica.cmp(&b.replica));
    Ok(strays)
}

fn read(row: &AnyRow) -> Result<Stray, StoreError> {
    let stray: Stray = row.record("stray", "stray replica")?;
    Ok(Stray { since: Timestamp(row.int("since")?), ending: row.int("ending")? != 0, ..stray })
}

/// The observed strays with the stored data. A stray that was restarted since counts as a new one.
fn merge(seen: &[Stray], known: &[Stray], now: Timestamp) -> Vec<Stray> {
    let mut merged: Vec<Stray> = seen
        .iter()
        .map(|stray| {
            let same = |other: &&Stray| {
                (&other.replica, &other.epoch, other.started_at) == (&stray.replica, &stray.epoch, stray.started_at)
            };
            match known.iter().find(same) {
                Some(known) => Stray { since: known.since, ending: known.ending, ..stray.clone() },
                None => Stray { since: now, ending: false, ..stray.clone() },
            }
        })
        .collect();
    merged.sort_by(|a, b| a.replica.cmp(&b.replica));
    merged
}
