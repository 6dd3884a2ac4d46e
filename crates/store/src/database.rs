//! The database: opening it, and what it says of itself.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::deployment::DEFAULT_PLACEMENT;
use sqlx::Connection as _;
use tokio::sync::{Semaphore, watch};

use crate::{
    StoreError,
    connect::{self, Kind, Place},
    migration,
    row::Columns as _,
};

/// The database. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) pool: sqlx::AnyPool,
    pub(crate) kind: Kind,
    /// SQLite has one writer at a time. The writers of this process queue here, in order, instead of polling a locked
    /// file.
    pub(crate) turn: Arc<Semaphore>,
    /// Counts the commits of this process, so that a reader in the same process does not need to wait for its next
    /// poll. It is only a hint.
    pub(crate) hint: Arc<watch::Sender<u64>>,
    /// Sends hints of the tasks that this process queues.
    pub(crate) announcer: Option<wake::Announcer>,
    pub(crate) place: Arc<Place>,
    /// The placement whose deployments a worker works on.
    pub(crate) placement: Arc<str>,
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
    pub(crate) async fn read(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Any>, StoreError> {
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
