//! Write transactions: they take the write lock at once. Also the effects of a commit.

use std::ops::{Deref, DerefMut};

use api::DeploymentId;
use sqlx::{
    Any, Transaction,
    any::{AnyArguments, AnyRow},
    pool::PoolConnection,
    query::Query,
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::{
    StoreError,
    connect::{Kind, Sql, WRITE_PATIENCE},
    database::Store,
};

/// Which failures a commit must survive. (PostgreSQL's commits always survive a power cut.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// A power cut: for changes that a user was told are done. On SQLite this costs a flush of the disk.
    Durable,
    /// The death of any process, but not a power cut, which also ends every lease holder: for leases, tasks and
    /// observations. Workers find them again.
    Recoverable,
}

#[derive(Debug, thiserror::Error)]
#[error("other writers of this process held the write lock for {WRITE_PATIENCE:?}")]
struct NoTurn;

/// A transaction that holds the write lock (SQLite). It is rolled back unless committed.
#[derive(Debug)]
pub(crate) struct Write {
    // Declared before the permit: the turn of the next writer begins when this transaction is over.
    held: Held,
    _turn: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Held {
    Sqlite(Transaction<'static, Any>),
    Postgres(Session),
}

/// A PostgreSQL connection in a transaction. If its caller leaves halfway (a client disconnects), the connection is
/// closed, which ends the transaction. Otherwise sqlx could return a connection with an open transaction to the pool,
/// and its next statements would be lost.
#[derive(Debug)]
struct Session {
    connection: PoolConnection<Any>,
    over: bool,
}

impl Session {
    async fn begin(connection: PoolConnection<Any>) -> Result<Self, StoreError> {
        let mut session = Self { connection, over: false };
        session.run("BEGIN").await?;
        Ok(session)
    }

    async fn end(mut self, sql: &'static str) -> Result<(), StoreError> {
        self.run(sql).await?;
        self.over = true;
        Ok(())
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(&mut *self.connection).await.map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.over {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Write {
    type Target = Sql;

    fn deref(&self) -> &Sql {
        match &self.held {
            Held::Sqlite(tx) => tx,
            Held::Postgres(session) => &session.connection,
        }
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Sql {
        match &mut self.held {
            Held::Sqlite(tx) => tx,
            Held::Postgres(session) => &mut session.connection,
        }
    }
}

impl Write {
    pub(crate) fn kind(&self) -> Kind {
        match self.held {
            Held::Sqlite(_) => Kind::Sqlite,
            Held::Postgres(_) => Kind::Postgres,
        }
    }

    /// Commits.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self.held {
            Held::Sqlite(tx) => Ok(tx.commit().await?),
            Held::Postgres(session) => session.end("COMMIT").await,
        }
    }

    /// Rolls back, and returns when that is done.
    pub(crate) async fn abandon(self) -> Result<(), StoreError> {
        match self.held {
            Held::Sqlite(tx) => Ok(tx.rollback().await?),
            Held::Postgres(session) => session.end("ROLLBACK").await,
        }
    }
}

impl Store {
    /// Begins a write transaction.
    pub(crate) async fn write(&self, care: Care) -> Result<Write, StoreError> {
        let turn = timeout(WRITE_PATIENCE, self.turn.clone().acquire_owned())
            .await
            .map_err(|_| StoreError::Unavailable(Box::new(NoTurn)))?
            .map_err(|closed| StoreError::Unavailable(Box::new(closed)))?;
        // IMMEDIATE: a transaction that starts to write later could find, too late to wait, that another one has
        // written since it began.
        let held = match (self.kind, care) {
            (Kind::Postgres, _) => Held::Postgres(Session::begin(self.pool.acquire().await?).await?),
            (Kind::Sqlite, Care::Durable) => {
                Held::Sqlite(self.pool.begin_with("PRAGMA synchronous = FULL; BEGIN IMMEDIATE").await?)
            }
            (Kind::Sqlite, Care::Recoverable) => {
                Held::Sqlite(self.pool.begin_with("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE").await?)
            }
        };
        Ok(Write { held, _turn: turn })
    }

    /// Runs one recoverable write statement, and returns its row, if any.
    pub(crate) async fn write_one(&self, query: Query<'_, Any, AnyArguments>) -> Result<Option<AnyRow>, StoreError> {
        if self.kind == Kind::Postgres {
            return Ok(query.fetch_optional(&self.pool).await?);
        }
        let mut write = self.write(Care::Recoverable).await?;
        let row = query.fetch_optional(&mut *write).await?;
        write.commit().await?;
        Ok(row)
    }

    /// Tells the readers of this process that something was committed.
    pub(crate) fn announce(&self) {
        self.hint.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Has a worker told that this deployment's task is due.
    pub(crate) fn announce_task(&self, id: DeploymentId) {
        if let Some(announcer) = &self.announcer {
            announcer.tell(id);
        }
    }
}
