//! The location of the database, and the setup of each connection.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    AnyConnection, AnyPool, Connection as _,
    any::{AnyConnectOptions, AnyPoolOptions},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{StoreError, error};

/// How long a writer waits for its turn before the error "unavailable".
pub(crate) const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// A connection or a transaction.
pub(crate) type Sql = AnyConnection;

/// The connections of one process. SQLite: one connection writes, the others read.
const SQLITE_CONNECTIONS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 10;
/// How long a caller waits for a connection to PostgreSQL. If the server refuses, sqlx retries until then, and all
/// callers wait that long for the error.
const POSTGRES_CONNECTION_PATIENCE: Duration = Duration::from_secs(2);

/// The kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// Where the database is.
#[derive(Clone)]
pub(crate) enum Place {
    Memory,
    File(PathBuf),
    Postgres(String),
}

#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a database URL; write sqlite:///path/modelway.db (without options), postgres://user@host/database or memory:"
)]
struct NotADatabase(String);

#[derive(Debug, thiserror::Error)]
#[error("the database file {path} cannot be opened: {source}; its folder must exist and be writable")]
struct NoFile {
    path: String,
    source: io::Error,
}

#[derive(Debug, thiserror::Error)]
#[error("the database did not answer within {0:?}")]
struct Silent(Duration);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("Memory"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Postgres(url) => f.debug_tuple("Postgres").field(&without_password(url)).finish(),
        }
    }
}

impl Place {
    pub(crate) fn parse(url: &str) -> Result<Self, StoreError> {
        let wrong = || StoreError::Unavailable(Box::new(NotADatabase(without_password(url))));
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).ok_or_else(wrong)?;
        if path.is_empty() || path.starts_with(':') || path.contains(['?', '\0']) {
            return Err(wrong());
        }
        Ok(Self::File(path.into()))
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Memory | Self::File(_) => Kind::Sqlite,
            Self::Postgres(_) => Kind::Postgres,
        }
    }

    /// Whether there can be a database: a missing file contains none.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Memory => false,
            Self::File(path) => path.exists(),
            Self::Postgres(_) => true,
        }
    }

    /// Whether another connection sees the same database.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory)
    }

    /// How many connections of this process may write at once.
    pub(crate) fn writers(&self) -> usize {
        match self.kind() {
            Kind::Sqlite => 1,
            Kind::Postgres => POSTGRES_CONNECTIONS as usize,
        }
    }

    /// Creates the file of the database if it is absent, readable only by its owner. SQLite gives its companion files
    /// (`-wal`, `-shm`) the same mode.
    pub(crate) fn create_private(&self) -> Result<(), StoreError> {
        let Self::File(path) = self else { return Ok(()) };
        match base::private::options().write(true).create_new(true).open(path) {
            Ok(_) => Ok(()),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(StoreError::Unavailable(Box::new(NoFile { path: path.display().to_string(), source }))),
        }
    }

    fn options(&self) -> Result<AnyConnectOptions, StoreError> {
        sqlx::any::install_default_drivers();
        let url = match self {
            Self::Memory => "sqlite::memory:".to_owned(),
            Self::File(path) => format!("sqlite:{}", percent_encoded(path)),
            Self::Postgres(url) => url.clone(),
        };
        Ok(url.parse()?)
    }

    /// One connection outside any pool.
    pub(crate) async fn connect(&self) -> Result<AnyConnection, StoreError> {
        let mut connection = AnyConnection::connect_with(&self.options()?).await?;
        set_up(&mut connection, self.kind()).await?;
        Ok(connection)
    }

    /// Opens connections as they are needed.
    pub(crate) fn pool(&self) -> Result<AnyPool, StoreError> {
        let kind = self.kind();
        let options = AnyPoolOptions::new()
            .acquire_timeout(WRITE_PATIENCE)
            .after_connect(move |connection, _| Box::pin(set_up(connection, kind)));
        let options = match self {
            // The database ends with its connection.
            Self::Memory => options.max_connections(1).idle_timeout(None).max_lifetime(None).test_before_acquire(false),
            Self::File(_) => options
                .max_connections(SQLITE_CONNECTIONS)
                .max_lifetime(None)
                .test_before_acquire(false)
                .before_acquire(|connection, _| Box::pin(is_usable(connection))),
            Self::Postgres(_) => {
                options.max_connections(POSTGRES_CONNECTIONS).acquire_timeout(POSTGRES_CONNECTION_PATIENCE)
            }
        };
        Ok(options.connect_lazy_with(self.options()?))
    }
}

/// Whether a connection is outside any transaction. SQLite ends a transaction by itself when the disk is full or fails.
/// sqlx then cannot roll it back, and would count it permanently.
async fn is_usable(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    // Runs after a rollback that may still be in progress.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// The statements that each connection runs first.
async fn set_up(connection: &mut AnyConnection, kind: Kind) -> Result<(), sqlx::Error> {
    let sql = match kind {
        Kind::Sqlite => "PRAGMA busy_timeout = 10000; PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 67108864",
        // A worker that was suspended within a transaction must not block all others.
        Kind::Postgres => {
            "SET lock_timeout = '10s'; SET statement_timeout = '30s'; \
             SET idle_in_transaction_session_timeout = '30s'; SET default_transaction_isolation = 'read committed'"
        }
    };
    sqlx::raw_sql(sql).execute(connection).await?;
    Ok(())
}

/// Retries until it succeeds, for at most `patience`; does not retry errors that waiting cannot solve.
pub(crate) async fn patiently<F>(patience: Duration, mut attempt: impl FnMut() -> F) -> Result<(), StoreError>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let deadline = Instant::now() + patience;
    let mut wait = Duration::from_millis(20);
    loop {
        // A server that accepts the connection but does not answer would block us without end.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let outcome =
            timeout(left, attempt()).await.unwrap_or_else(|_| Err(StoreError::Unavailable(Box::new(Silent(patience)))));
        match outcome {
            Err(refusal) if error::may_pass(&refusal) && Instant::now() + wait < deadline => {
                tracing::debug!(error = &refusal as &dyn std::error::Error, "the database is not there yet");
                sleep(wait).await;
                wait = (wait * 2).min(Duration::from_millis(500));
            }
            outcome => return outcome,
        }
    }
}

fn percent_encoded(path: &Path) -> String {
    use std::{fmt::Write as _, os::unix::ffi::OsStrExt as _};
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
            url.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
        url
    })
}

/// A URL without its password.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_its_url() {
        let file = |url: &str| match Place::parse(url) {
            Ok(Place::File(path)) => path.display().to_string(),
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(file("sqlite:///var/lib/modelway.db"), "/var/lib/modelway.db");
        assert_eq!(file("sqlite://modelway.db"), "modelway.db");
        assert_eq!(file("sqlite:modelway.db"), "modelway.db");
        assert_eq!(file("sqlite:///a b/100%/ü.db"), "/a b/100%/ü.db");
        assert!(matches!(Place::parse("memory:"), Ok(Place::Memory)));
        assert!(matches!(Place::parse("postgres://u@h/d"), Ok(Place::Postgres(_))));
        for wrong in ["", "mysql://x", "sqlite:", "sqlite::memory:", "sqlite:///x.db?mode=ro"] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("mysql://root:secret@host/x"), "mysql://…@host/x");
    }
}
