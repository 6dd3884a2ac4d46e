//! The epochs of this database.
//!
//! A database that was restored from an older copy assigns ids of deployments, numbers of revisions and fences a second
//! time. To keep the old and the new ones apart, it continues with a new epoch.

use api::{Epoch, Fence};

use crate::{
    Lease, Sql, Store, StoreError, lease,
    row::{self, Columns as _},
    transaction::Care,
};

const CURRENT: &str = "epoch";
const FORMER: &str = "former_epochs";

/// The current and the former epochs of this database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The current epoch.
    pub current: Epoch,
    /// The former epochs, oldest first.
    pub former: Vec<Epoch>,
}

impl Lineage {
    /// The fence of a lease that was taken in the current epoch.
    #[must_use]
    pub fn fence(&self, lease: &Lease) -> Fence {
        Fence { epoch: self.current.clone(), former: self.former.clone(), number: lease.fence.0 }
    }
}

impl Store {
    /// The current and the former epochs of this database.
    pub async fn lineage(&self) -> Result<Lineage, StoreError> {
        lineage(&mut *self.read().await?).await
    }

    /// Begins a new epoch, unless `seen` is no longer the current one. All leases end, so that no worker continues
    /// under the old epoch. Returns the epochs after that, and whether this call has changed them.
    pub async fn epoch_renew(&self, seen: &Epoch) -> Result<(Lineage, bool), StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        let fresh = uuid::Uuid::new_v4().to_string();
        let renewed = sqlx::query("UPDATE property SET value = $1 WHERE name = $2 AND value = $3 RETURNING name")
            .bind(fresh)
            .bind(CURRENT)
            .bind(&seen.0)
            .fetch_optional(&mut *sql)
            .await?;
        let mut names = lineage(&mut sql).await?;
        if renewed.is_none() {
            sql.abandon().await?;
            return Ok((names, false));
        }
        names.former.push(seen.clone());
        sqlx::query(
            "INSERT INTO property (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(FORMER)
        .bind(row::json(&names.former)?)
        .execute(&mut *sql)
        .await?;
        lease::free_all(&mut sql).await?;
        sql.commit().await?;
        self.announce();
        Ok((names, true))
    }
}

async fn lineage(sql: &mut Sql) -> Result<Lineage, StoreError> {
    let rows = sqlx::query("SELECT name, value FROM property WHERE name IN ($1, $2)")
        .bind(CURRENT)
        .bind(FORMER)
        .fetch_all(sql)
        .await?;
    let (mut current, mut former) = (None, Vec::new());
    for row in &rows {
        if row.text("name")? == CURRENT {
            current = Some(Epoch(row.text("value")?));
        } else {
            former = row.json("value", "list of epochs")?;
        }
    }
    let missing = || StoreError::Corrupt { what: "table of properties", source: "it names no epoch".into() };
    Ok(Lineage { current: current.ok_or_else(missing)?, former })
}
