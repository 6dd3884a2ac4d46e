//! The store: all state that Modelway must not lose, in SQL.
//!
//! The same SQL text serves SQLite and PostgreSQL: columns are TEXT or BIGINT, times are microseconds, structured
//! values are JSON text. Method names begin with the noun. A change, its revision, its event and its wake-up commit in
//! one transaction, so no reader sees one without the others.
//!
//! Two workers never hold one deployment: each taking of its lease makes a greater fencing token, and
//! everything that a worker writes names its token. Numbers of deployments and versions of routes come from counter
//! rows inside the transaction, so they are never reused and their order is the order of commits. Ids of events need no
//! such row (`event/id.rs`). PostgreSQL transactions lock in one order: a deployment's row, its task, then the counters
//! `deployment`, `route`.
//!
//! **Invariant:** nothing here reads the clock; `now` is a parameter. (The queue, which is a loop, holds one.) No task
//! runs in the background.

mod connect;
mod counter;
mod deployment;
mod epoch;
mod error;
mod event;
mod idempotency;
mod lease;
mod migration;
mod prune;
mod registry;
mod revision;
mod route;
mod row;
mod stray;
mod task_queue;
mod transaction;
mod wake_ups;
mod worker;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::deployment::DEFAULT_PLACEMENT;
use sqlx::{AnyConnection, Connection as _};
use tokio::sync::{Semaphore, watch};

pub use deployment::{DeploymentFilter, DeploymentRecord, Page, SettledRow};
pub use epoch::Lineage;
pub use error::StoreError;
pub use event::Order;
pub use idempotency::Idempotent;
pub use lease::{Fence, Lease};
pub use prune::Pruned;
pub use route::RoutePage;
pub use task_queue::{Receipt, Task, TaskQueue};
pub use worker::WorkerRecord;

use crate::{
    connect::{Kind, Place},
    row::Columns as _,
};

/// The database. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pool: sqlx::AnyPool,
    kind: Kind,
    /// SQLite has one writer at a time. The writers of this process queue here, in order, instead of polling a locked
    /// file.
    turn: Arc<Semaphore>,
    /// Counts the commits of this process, so that a reader in the same process does not need to wait for its next
    /// poll. It is only a hint.
    hint: Arc<watch::Sender<u64>>,
    /// Sends hints of the tasks that this process queues.
    announcer: Option<wake::Announcer>,
    place: Arc<Place>,
    /// The placement whose deployments a worker works on.
    placement: Arc<str>,
}

impl Store {
    /// Opens `sqlite:///path/file.db` (created if absent; the path is used as written) or `postgres://…`, and migrates
    /// its schema. Several processes may start at once. `memory:` is a separate database that ends with the last clone.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] before any change; [`StoreError::Corrupt`] for a file that is not Modelway's;
    /// [`StoreError::Unavailable`] after `patience`, or at once if waiting cannot help.
    pub async fn open(url: &str, patience: Duration) -> Result<Self, StoreError> {
        let place = Place::parse(url)?;
        place.create_private()?;
        if place.is_shared() {
            connect::patiently(patience, || async {
                let mut connection = place.connect().await?;
                migration::run(&mut connection, &place).await?;
                Ok(connection.close().await?)
            })
            .await?;
        }
        let pool = place.pool()?;
        if !place.is_shared() {
            migration::run(&mut *pool.acquire().await?, &place).await?;
        }
        Ok(Self {
            pool,
            kind: place.kind(),
            turn: Arc::new(Semaphore::new(place.writers())),
            hint: Arc::new(watch::Sender::new(0)),
            announcer: None,
            place: Arc::new(place),
            placement: DEFAULT_PLACEMENT.into(),
        })
    }

    /// The same database, for one who has workers told of the tasks that it queues.
    #[must_use]
    pub fn announcing(self, announcer: wake::Announcer) -> Self {
        Self { announcer: Some(announcer), ..self }
    }

    /// Which schema a database has, without bringing it up to date. `None` if there is none yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it does not answer within `patience`.
    pub async fn inspect(url: &str, patience: Duration) -> Result<Option<Schema>, StoreError> {
        let place = Place::parse(url)?;
        if !place.is_there() {
            return Ok(None);
        }
        let schema = Mutex::new(None);
        connect::patiently(patience, || async {
            let mut connection = place.connect().await?;
            let found = migration::version(&mut connection, place.kind()).await?;
            *schema.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            Ok(connection.close().await?)
        })
        .await?;
        let found = schema.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(found.filter(|found| *found > 0).map(|found| Schema { found, known: migration::known() }))
    }

    /// For workers: this database, where leases, tasks and scans show only the deployments of `placement`. A store that was
    /// just opened shows those of [`DEFAULT_PLACEMENT`].
    #[must_use]
    pub fn placed(&self, placement: &str) -> Self {
        Self { placement: placement.into(), ..self.clone() }
    }

    /// The placement whose deployments a worker works on.
    #[must_use]
    pub fn placement(&self) -> &str {
        &self.placement
    }

    /// The random name of this database: the same for all who open it.
    pub async fn epoch(&self) -> Result<String, StoreError> {
        let row = sqlx::query("SELECT value FROM property WHERE name = 'epoch'").fetch_one(&self.pool).await?;
        row.text("value")
    }

    /// Checks that the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        sqlx::query("SELECT value FROM counter WHERE name = 'route'").fetch_one(&mut *connection).await?;
        Ok(())
    }

    /// Changes whenever this process has committed data that others wait for: a deployment, a route, an event, the
    /// registry. Leases and tasks do not count.
    #[must_use]
    pub fn hints(&self) -> watch::Receiver<u64> {
        self.hint.subscribe()
    }

    /// A connection for reading. If there is only one (`memory:`), a caller must not hold a second one.
    async fn read(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Any>, StoreError> {
        Ok(self.pool.acquire().await?)
    }
}

/// The schema version of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The version of the database.
    pub found: i64,
    /// The newest version that this Modelway knows.
    pub known: i64,
}

/// A connection or a transaction.
pub(crate) type Sql = AnyConnection;
