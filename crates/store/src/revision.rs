//! The revisions of a deployment: immutable, numbered from 1. Old ones are removed.

use api::{
    DeploymentId, Revision, RevisionNumber, Timestamp,
    deployment::RegisteredRef,
    revision::{FoundFiles, Pin, RevisionSpec},
    traffic::Share,
};
use sqlx::any::AnyRow;

use crate::{
    Lease, Sql, Store, StoreError,
    row::{Columns as _, clean, json, record},
    transaction::Care,
};

/// How many of the newest revisions are kept for rollbacks.
const KEPT: usize = 10;

impl Store {
    /// The revisions that a deployment can roll back to, newest first. Empty for a removed deployment.
    pub async fn revision_list(&self, deployment: DeploymentId) -> Result<Vec<Revision>, StoreError> {
        kept(&mut *self.read().await?, deployment).await
    }

    /// For workers: stores the files of a revision, unless they are known. The caller reads the revision again.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the lease was taken over; then nothing was written.
    pub async fn revision_pin(
        &self,
        lease: &Lease,
        number: RevisionNumber,
        files: &FoundFiles,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let pin = Pin { files: files.clone(), at: now };
        let mut sql = self.write(Care::Durable).await?;
        // Locks the row, so that no other worker takes the lease over before the commit.
        let held = sqlx::query(
            "UPDATE deployment SET fence = fence WHERE id = $1 AND fence = $2 AND lease_owner = $3 RETURNING id",
        )
        .bind(lease.deployment.0)
        .bind(lease.fence.0)
        .bind(clean(&lease.owner))
        .fetch_optional(&mut *sql)
        .await?;
        if held.is_none() {
            sql.abandon().await?;
            return Err(StoreError::Fenced);
        }
        sqlx::query("UPDATE revision SET pin = $1 WHERE deployment = $2 AND number = $3 AND pin IS NULL")
            .bind(json(&pin)?)
            .bind(lease.deployment.0)
            .bind(i64::from(number.0))
            .execute(&mut *sql)
            .await?;
        sql.commit().await
    }
}

/// The revisions of a deployment, newest first.
pub(crate) async fn kept(sql: &mut Sql, deployment: DeploymentId) -> Result<Vec<Revision>, StoreError> {
    let rows = sqlx::query(
        "SELECT deployment, number, created_at, spec, pin FROM revision WHERE deployment = $1 ORDER BY number DESC",
    )
    .bind(deployment.0)
    .fetch_all(sql)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<Revision, StoreError> {
    Ok(Revision {
        deployment: DeploymentId(row.int("deployment")?),
        number: RevisionNumber(row.small("number")?),
        spec: row.record("spec", "revision")?,
        created_at: Timestamp(row.int("created_at")?),
        pin: row.maybe_json("pin", "revision's files")?,
    })
}

/// Writes a revision, with the name and version of the registered model that it was created from.
pub(crate) async fn insert(
    sql: &mut Sql,
    deployment: DeploymentId,
    number: RevisionNumber,
    content: &RevisionSpec,
    (model, version): (Option<&str>, Option<&str>),
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let content = record(content).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query(
        "INSERT INTO revision (deployment, number, created_at, model_name, model_version, spec) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(deployment.0)
    .bind(i64::from(number.0))
    .bind(now.0)
    .bind(model.map(clean))
    .bind(version.map(clean))
    .bind(content)
    .execute(sql)
    .await?;
    Ok(())
}

/// How a changed specification affects the wanted revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The content does not change.
    Same,
    /// A rollback to a kept revision: nothing is rebuilt.
    Back(RevisionNumber),
    /// A new revision.
    New(RevisionNumber),
}

/// Compares `content` with the kept revisions (newest first), of which `wanted` is the wanted one. An older revision
/// with the same content is not reused, because the files at its address may have changed since.
pub(crate) fn next(kept: &[Revision], wanted: RevisionNumber, content: &RevisionSpec) -> Next {
    if kept.iter().any(|revision| revision.number == wanted && revision.spec == *content) {
        return Next::Same;
    }
    new(kept, wanted)
}

/// A revision with a number after all kept ones (newest first).
pub(crate) fn new(kept: &[Revision], wanted: RevisionNumber) -> Next {
    Next::New(RevisionNumber(kept.first().map_or(wanted, |newest| newest.number).0 + 1))
}

/// The registered version that a revision was created from, if any.
pub(crate) async fn registered(
    sql: &mut Sql,
    deployment: DeploymentId,
    number: RevisionNumber,
) -> Result<Option<RegisteredRef>, StoreError> {
    let row = sqlx::query("SELECT model_name, model_version FROM revision WHERE deployment = $1 AND number = $2")
        .bind(deployment.0)
        .bind(i64::from(number.0))
        .fetch_optional(sql)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (name, version) = (row.maybe_text("model_name")?, row.maybe_text("model_version")?);
    Ok(name.zip(version).map(|(name, version)| RegisteredRef { name, version }))
}

/// Removes old revisions: all but the newest ten, `wanted` and those with a share of the traffic.
pub(crate) async fn prune(
    sql: &mut Sql,
    deployment: DeploymentId,
    kept: &[Revision],
    wanted: RevisionNumber,
    traffic: &[Share],
) -> Result<(), StoreError> {
    let has_share = |number| traffic.iter().any(|share| share.revision == number);
    for old in kept.iter().skip(KEPT).map(|revision| revision.number) {
        if old != wanted && !has_share(old) {
            sqlx::query("DELETE FROM revision WHERE deployment = $1 AND number = $2")
                .bind(deployment.0)
                .bind(i64::from(old.0))
                .execute(&mut *sql)
                .await?;
        }
    }
    Ok(())
}

/// Releases the registered versions that the revisions of a deployment were created from.
pub(crate) async fn let_models_go(sql: &mut Sql, deployment: DeploymentId) -> Result<(), StoreError> {
    sqlx::query("UPDATE revision SET model_name = NULL, model_version = NULL WHERE deployment = $1")
        .bind(deployment.0)
        .execute(sql)
        .await?;
    Ok(())
}
