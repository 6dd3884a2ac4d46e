//! The errors of the store, and how errors of the database map to them.

use sqlx::error::DatabaseError;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the store refused, grouped by what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not exist.
    #[error("{what} does not exist")]
    NotFound {
        /// The missing item, as in `deployment 7`.
        what: String,
    },
    /// Another item has that name, or uses this item.
    #[error("{reason}")]
    Conflict {
        /// A stable code: `name_taken`, `in_use`, `exists`, `deleting`, `other_scope`, `idempotency_key_reused`.
        code: &'static str,
        /// A sentence that says what the conflict is and what to do.
        reason: String,
    },
    /// The deployment has changed since the caller read it.
    #[error("the deployment has changed since it was read; read it again and repeat the change")]
    Stale,
    /// The lease of the caller was taken over.
    #[error("this worker's lease was taken over")]
    Fenced,
    /// A newer Modelway wrote the database.
    #[error(
        "the database is at schema {found}, newer than this version of Modelway supports ({known}); install the newer version; nothing was changed"
    )]
    TooNew {
        /// The database's schema version.
        found: i64,
        /// The newest schema version that this Modelway knows.
        known: i64,
    },
    /// A retry may work.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A stored value is invalid: a bug or a damaged database.
    #[error("the database contains an invalid {what}")]
    Corrupt {
        /// What the value is.
        what: &'static str,
        /// Why it is invalid.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An error of the database, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{advice}")]
struct Advised {
    advice: &'static str,
    #[source]
    source: BoxError,
}

fn unavailable(advice: &'static str, source: impl Into<BoxError>) -> StoreError {
    StoreError::Unavailable(Box::new(Advised { advice, source: source.into() }))
}

fn corrupt(what: &'static str, advice: &'static str, source: impl Into<BoxError>) -> StoreError {
    StoreError::Corrupt { what, source: Box::new(Advised { advice, source: source.into() }) }
}

const RESTORE: &str =
    "the database is damaged, or does not belong to Modelway; restore it from a backup, or use another one";
const DISK_FULL: &str = "the disk that holds the database is full; free some space; no part of this change was saved";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(database) = &error {
            return match fault(database.as_ref()) {
                Fault::Damaged => corrupt("page", RESTORE, error),
                Fault::Full => unavailable(DISK_FULL, error),
                Fault::Busy => unavailable("another process held the write lock of the database for too long", error),
                Fault::ReadOnly => unavailable("the database's file or its disk cannot be written", error),
                Fault::Missing | Fault::Other => Self::Unavailable(Box::new(error)),
            };
        }
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return unavailable(
                "no connection was available in time: the database is down, or all connections are in use",
                error,
            );
        }
        if matches!(
            error,
            sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::ColumnNotFound(_)
                | sqlx::Error::ColumnIndexOutOfBounds { .. }
                | sqlx::Error::RowNotFound
                | sqlx::Error::TypeNotFound { .. }
        ) {
            return Self::Corrupt { what: "row", source: Box::new(error) };
        }
        Self::Unavailable(Box::new(error))
    }
}

/// The meaning of a database's error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The file, or a page of it, does not belong to a database.
    Damaged,
    /// No space is left.
    Full,
    /// Another connection holds a lock.
    Busy,
    /// The database is not writable.
    ReadOnly,
    /// The file or the database does not exist.
    Missing,
    /// Anything else.
    Other,
}

/// Maps an error of either database: PostgreSQL's codes have five characters, SQLite's are numbers whose lowest byte is
/// the kind.
pub(crate) fn fault(error: &dyn DatabaseError) -> Fault {
    let code = error.code().unwrap_or_default();
    if code.len() == 5 {
        return match code.as_ref() {
            "XX001" | "XX002" => Fault::Damaged,
            "53100" => Fault::Full,
            "55P03" | "40P01" | "40001" => Fault::Busy,
            "25006" => Fault::ReadOnly,
            "3D000" => Fault::Missing,
            _ => Fault::Other,
        };
    }
    match code.parse::<i32>().map(|code| code & 0xff) {
        Ok(11 | 26) => Fault::Damaged,
        Ok(13) => Fault::Full,
        Ok(5 | 6) => Fault::Busy,
        Ok(8) => Fault::ReadOnly,
        Ok(14) => Fault::Missing,
        _ => Fault::Other,
    }
}

/// Whether a statement failed because the value already exists.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}

/// Whether a statement failed because it refers to a missing row, or because other rows refer to its row.
pub(crate) fn is_referenced(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_foreign_key_violation)
}

/// Whether opening the database may work a moment later: it is starting, restarting, busy, or unreachable.
pub(crate) fn may_pass(error: &StoreError) -> bool {
    let StoreError::Unavailable(source) = error else { return false };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
    while let Some(error) = cause {
        match error.downcast_ref::<sqlx::Error>() {
            Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => return true,
            Some(sqlx::Error::Database(database)) => {
                // 57P03: it is starting. 53300: too many connections. 08…: the connection broke.
                let code = database.code().unwrap_or_default();
                return fault(database.as_ref()) == Fault::Busy
                    || code == "57P03"
                    || code == "53300"
                    || (code.len() == 5 && code.starts_with("08"));
            }
            _ => cause = error.source(),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::{DeploymentSpec, Timestamp};

    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn a_full_disk_is_said_and_costs_only_what_did_not_fit() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}/modelway.db", folder.path().display());
        let store = Store::open(&url, Duration::ZERO).await.expect("it opens");
        let spec = serde_json::json!({"model": {"bucket": "/m", "version": "v1"}, "env": {"A": "x".repeat(9000)}});
        let spec = DeploymentSpec::from_json(spec).expect("it is valid");
        let create = async || store.deployment_create(&spec, None, Timestamp(1)).await;
        // Of the one connection that there is so far.
        let mut sql = store.read().await.expect("it is free");
        sqlx::raw_sql("PRAGMA max_page_count = 60").execute(&mut *sql).await.expect("it is known");
        drop(sql);
        let mut made = 0;
        let error = loop {
            match create().await {
                Ok(_) => made += 1,
                Err(error) => break error,
            }
            assert!(made < 100, "the limit was never reached");
        };
        let StoreError::Unavailable(advice) = &error else { panic!("{error:?}") };
        assert!(advice.to_string().contains("free some space"), "{advice}");
        assert!(advice.source().is_some(), "the database's own words are kept");
        // The broken connection goes, and with it the limit.
        assert_eq!(create().await.expect("there is room again").id.0, made + 1, "what was refused left nothing");
    }
}
