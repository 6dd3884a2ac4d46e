//! Idempotency keys: they make a `POST` safe to repeat.

use std::time::Duration;

use api::{DeploymentId, Timestamp};

use crate::{
    Sql, StoreError,
    row::{Columns as _, clean},
};

/// How long a key is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// An `Idempotency-Key` and the digest of its payload. Kept for a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotent {
    /// The key, at most 255 characters.
    pub key: String,
    /// SHA-256 of the payload, in hexadecimal digits.
    pub payload: String,
}

fn forgotten(now: Timestamp) -> i64 {
    now.0.saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX))
}

/// Records that `key` created `deployment`. If the key has created one before, returns that one.
///
/// # Errors
/// [`StoreError::Conflict`] `idempotency_key_reused` if the key came with another payload before.
pub(crate) async fn claim(
    sql: &mut Sql,
    key: &Idempotent,
    deployment: DeploymentId,
    now: Timestamp,
) -> Result<Option<DeploymentId>, StoreError> {
    let claimed = sqlx::query(
        "INSERT INTO idempotency (name, payload, deployment, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO UPDATE \
         SET payload = excluded.payload, deployment = excluded.deployment, created_at = excluded.created_at \
         WHERE idempotency.created_at <= $5 RETURNING name",
    )
    .bind(clean(&key.key))
    .bind(clean(&key.payload))
    .bind(deployment.0)
    .bind(now.0)
    .bind(forgotten(now))
    .fetch_optional(&mut *sql)
    .await?;
    if claimed.is_some() {
        forget(sql, now).await?;
        return Ok(None);
    }
    let before = sqlx::query("SELECT payload, deployment FROM idempotency WHERE name = $1")
        .bind(clean(&key.key))
        .fetch_one(sql)
        .await?;
    let made = DeploymentId(before.int("deployment")?);
    if before.text("payload")? != key.payload {
        return Err(StoreError::Conflict {
            code: "idempotency_key_reused",
            reason: format!(
                "this Idempotency-Key was used with another payload, and created {made}; use a new key for a new deployment"
            ),
        });
    }
    Ok(Some(made))
}

/// Removes old keys; returns their number.
pub(crate) async fn forget(sql: &mut Sql, now: Timestamp) -> Result<u64, StoreError> {
    let old = sqlx::query("DELETE FROM idempotency WHERE created_at <= $1").bind(forgotten(now));
    Ok(old.execute(sql).await?.rows_affected())
}
