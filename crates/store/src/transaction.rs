//! Writing: transactions that take the write lock at once, and what becomes of it when they commit.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{
    Any, Transaction,
    any::{AnyArguments, AnyRow},
    query::Query,
};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::timeout,
};

use crate::{Sql, Store, StoreError, connect::Kind};

/// How long a writer waits for its turn before the caller is told that the database is unavailable.
pub(crate) const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// What a commit must survive. (PostgreSQL's always survives a power cut.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// A power cut: what a person was told is done. On SQLite it costs a flush of the disk.
    Durable,
    /// The death of any process, but not a power cut, which ends every holder of a lease too: leases,
    /// tasks, observations. Workers find them again.
    Recoverable,
}

#[derive(Debug, thiserror::Error)]
#[error("this process's other writers kept the database busy for {WRITE_PATIENCE:?}")]
struct NoTurn;

/// A transaction that holds the write lock (SQLite). Rolled back unless committed.
#[derive(Debug)]
pub(crate) struct Write {
    // Before the permit: the next one's turn begins when this transaction is over.
    tx: Transaction<'static, Any>,
    _turn: OwnedSemaphorePermit,
}

impl Deref for Write {
    type Target = Sql;

    fn deref(&self) -> &Sql {
        &self.tx
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Sql {
        &mut self.tx
    }
}

impl Write {
    /// Keeps what was written.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }

    /// Keeps nothing, and is over when this returns.
    pub(crate) async fn abandon(self) -> Result<(), StoreError> {
        Ok(self.tx.rollback().await?)
    }
}

impl Store {
    /// Begins to write.
    pub(crate) async fn write(&self, care: Care) -> Result<Write, StoreError> {
        let turn = timeout(WRITE_PATIENCE, self.turn.clone().acquire_owned())
            .await
            .map_err(|_| StoreError::Unavailable(Box::new(NoTurn)))?
            .map_err(|closed| StoreError::Unavailable(Box::new(closed)))?;
        // IMMEDIATE: one that only begins to write later would find, too late to wait, that another one
        // had written since it began.
        let begin = match (self.kind, care) {
            (Kind::Postgres, _) => "BEGIN",
            (Kind::Sqlite, Care::Durable) => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
            (Kind::Sqlite, Care::Recoverable) => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
        };
        Ok(Write { tx: self.pool.begin_with(begin).await?, _turn: turn })
    }

    /// Runs one recoverable statement that writes, and returns the one row that it answers with, if any.
    pub(crate) async fn write_one(&self, query: Query<'_, Any, AnyArguments>) -> Result<Option<AnyRow>, StoreError> {
        if self.kind == Kind::Postgres {
            return Ok(query.fetch_optional(&self.pool).await?);
        }
        let mut write = self.write(Care::Recoverable).await?;
        let row = query.fetch_optional(&mut *write).await?;
        write.commit().await?;
        Ok(row)
    }

    /// Tells this process's readers that something was committed.
    pub(crate) fn announce(&self) {
        bump(&self.hint);
    }

    /// Tells this process's waiting workers that a task is due.
    pub(crate) fn announce_task(&self) {
        bump(&self.woken);
    }
}

fn bump(counter: &watch::Sender<u64>) {
    counter.send_modify(|count| *count = count.wrapping_add(1));
}
