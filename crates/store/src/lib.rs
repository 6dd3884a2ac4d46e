//! The truth: everything that Modelway must not forget, in SQL.
//!
//! One SQL text serves SQLite and PostgreSQL: columns are TEXT or BIGINT, times are microseconds, structured
//! values are JSON text. Methods are named noun first. A change, its revision, its event and its wake-up
//! commit in one transaction, so there is no moment in which one is there without the others.
//!
//! **Invariant:** nothing here reads the clock; `now` is a parameter.

mod deployment;
mod event;
mod idempotency;
mod lease;
mod registry;
mod route;
mod task_queue;
mod worker;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

pub use deployment::{DeploymentFilter, DeploymentRecord, Page, SettledRow};
pub use idempotency::Idempotent;
pub use lease::{Fence, Lease};
pub use route::RoutePage;
pub use task_queue::SqlTaskQueue;
pub use worker::WorkerRecord;

/// Why the store refused, sorted by what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such thing.
    #[error("{what} does not exist")]
    NotFound {
        /// What was asked for, as in `deployment 7`.
        what: String,
    },
    /// Another one has that name, or uses it.
    #[error("{reason}")]
    Conflict {
        /// A stable word: `name_taken`, `in_use`, `exists`, `deleting`.
        code: &'static str,
        /// A sentence: what is in the way and what to do.
        reason: String,
    },
    /// It changed since the caller read it.
    #[error("the deployment has changed since it was read; read it again and repeat the change")]
    Stale,
    /// The caller's lease was taken over.
    #[error("this worker's lease was taken over")]
    Fenced,
    /// The database was written by a newer Modelway.
    #[error(
        "the database is at schema {found}, newer than this Modelway knows ({known}); install the newer Modelway, nothing was changed"
    )]
    TooNew {
        /// The database's schema version.
        found: i64,
        /// The newest one known here.
        known: i64,
    },
    /// Asking again may work.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A stored value cannot be read: a defect or a damaged database.
    #[error("the database holds a {what} that cannot be read")]
    Corrupt {
        /// What it is.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The database. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Store {
    pool: sqlx::AnyPool,
    /// Counts this process's own commits, so that a reader in the same process need not wait for its
    /// next look. A hint like any other.
    hint: Arc<watch::Sender<u64>>,
}

impl Store {
    /// Opens `sqlite:///path/file.db` (made if absent) or `postgres://…`, and brings its schema up to date.
    /// Several may start at once. `memory:` is a database of its own that ends with the last clone.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] before anything is touched; [`StoreError::Unavailable`] after `patience`.
    pub async fn open(url: &str, patience: Duration) -> Result<Self, StoreError> {
        todo!("{url} {patience:?}")
    }

    /// Names this database: the same for all who open it, another for any other database.
    pub async fn epoch(&self) -> Result<String, StoreError> {
        todo!()
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        todo!()
    }

    /// Changes whenever this process has committed something.
    #[must_use]
    pub fn hints(&self) -> watch::Receiver<u64> {
        self.hint.subscribe()
    }
}
