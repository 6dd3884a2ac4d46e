//! Numbers that are assigned once, in the order of commits: taking a number locks the row of its counter until the
//! transaction ends.

use crate::{Sql, StoreError, row::Columns as _};

/// A counter. Take them in the order of this list, to avoid deadlocks in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    Deployment,
    Route,
    /// The newest version of the route table whose tombstone was removed.
    RoutePruned,
    /// Used as a lock, not for its number: only one transaction at a time registers workers.
    Worker,
}

impl Counter {
    fn name(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Route => "route",
            Self::RoutePruned => "route_pruned",
            Self::Worker => "worker",
        }
    }

    /// Takes `count` numbers; returns the first.
    pub(crate) async fn take(self, sql: &mut Sql, count: i64) -> Result<i64, StoreError> {
        let row = sqlx::query("UPDATE counter SET value = value + $1 WHERE name = $2 RETURNING value")
            .bind(count)
            .bind(self.name())
            .fetch_one(sql)
            .await?;
        Ok(row.int("value")? - count + 1)
    }

    /// The last number that a committed transaction took.
    pub(crate) async fn last(self, sql: &mut Sql) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT value FROM counter WHERE name = $1").bind(self.name()).fetch_one(sql).await?;
        row.int("value")
    }
}
