//! Repeating a `POST` safely.

use std::time::Duration;

use api::{DeploymentId, Timestamp};

use crate::{
    Sql, StoreError,
    row::{Columns as _, clean},
};

/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// An `Idempotency-Key` and the digest of the payload that it came with. Kept for a day.
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

/// Remembers that `key` made `deployment`; `Some` of the one that it has made before.
///
/// # Errors
/// [`StoreError::Conflict`] `idempotency_key_reused` if it came with another payload then.
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
                "this Idempotency-Key came with another payload before, and made {made}; use a new key for a new deployment"
            ),
        });
    }
    Ok(Some(made))
}

/// Forgets the keys that came long ago; how many those were.
pub(crate) async fn forget(sql: &mut Sql, now: Timestamp) -> Result<u64, StoreError> {
    let old = sqlx::query("DELETE FROM idempotency WHERE created_at <= $1").bind(forgotten(now));
    Ok(old.execute(sql).await?.rows_affected())
}
