//! Migrates the schema of a database.
//!
//! Each migration and the row that records it are one transaction. So a process that dies within a migration leaves
//! nothing behind, and the next one starts it again. Processes that start at the same time wait for the first one, and
//! then find nothing to do. A released migration is never changed; a new one is added instead.

use sqlx::{Connection as _, Row as _, any::AnyRow};

use crate::{
    Sql, StoreError,
    connect::{Kind, Place},
    row::Columns as _,
};

/// In the order in which they run; the first one makes version 1. A few are for one of the two databases only.
const MIGRATIONS: &[Migration] = &[
    Migration::Both(include_str!("../migrations/0001_initial.sql")),
    Migration::Both(include_str!("../migrations/0002_bounds.sql")),
    Migration::Both(include_str!("../migrations/0003_pin.sql")),
    Migration::Both(include_str!("../migrations/0004_stray.sql")),
    Migration::Both(include_str!("../migrations/0005_route_halves.sql")),
    Migration::Both(include_str!("../migrations/0006_traffic.sql")),
    Migration::Postgres(include_str!("../migrations/0007_event_ids_postgres.sql")),
    Migration::Both(include_str!("../migrations/0008_placement.sql")),
    Migration::Both(include_str!("../migrations/0009_task_placement.sql")),
];

/// The SQL of one version.
enum Migration {
    Both(&'static str),
    Postgres(&'static str),
}

impl Migration {
    fn sql(&self, kind: Kind) -> Option<&'static str> {
        match (self, kind) {
            (Self::Both(sql), _) | (Self::Postgres(sql), Kind::Postgres) => Some(sql),
            (Self::Postgres(_), Kind::Sqlite) => None,
        }
    }
}

/// Any number that other programs on the same PostgreSQL server will hardly use ("modelway").
const ADVISORY_LOCK: &str = "SELECT pg_advisory_xact_lock(7885631562835751289)";

#[derive(Debug, thiserror::Error)]
#[error("it has tables (such as `{0}`), but not those of Modelway; it belongs to another program, so use another file")]
struct Foreign(String);

/// The newest version.
pub(crate) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

pub(crate) async fn run(sql: &mut Sql, place: &Place) -> Result<(), StoreError> {
    let kind = place.kind();
    let known = known();
    let found = version(sql, kind).await?;
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    if found == 0 && kind == Kind::Sqlite {
        refuse_foreign(sql).await?;
    }
    if matches!(place, Place::File(_)) {
        sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut *sql).await?;
    }
    for (version, migration) in (1..).zip(MIGRATIONS).skip_while(|(version, _)| *version <= found) {
        apply(sql, kind, version, migration.sql(kind)).await?;
    }
    Ok(())
}

async fn apply(sql: &mut Sql, kind: Kind, number: i64, migration: Option<&'static str>) -> Result<(), StoreError> {
    let begin = if kind == Kind::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
    let mut tx = sql.begin_with(begin).await?;
    if kind == Kind::Postgres {
        sqlx::raw_sql(ADVISORY_LOCK).execute(&mut *tx).await?;
    }
    if version(&mut tx, kind).await? >= number {
        return Ok(tx.rollback().await?);
    }
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS modelway_schema (version BIGINT NOT NULL PRIMARY KEY)")
        .execute(&mut *tx)
        .await?;
    if let Some(migration) = migration {
        sqlx::raw_sql(migration).execute(&mut *tx).await?;
    }
    sqlx::query("INSERT INTO modelway_schema (version) VALUES ($1)").bind(number).execute(&mut *tx).await?;
    if number == 1 {
        let epoch = uuid::Uuid::new_v4().to_string();
        sqlx::query("INSERT INTO property (name, value) VALUES ('epoch', $1)").bind(epoch).execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}

/// The newest migration that was applied; 0 for an empty database.
pub(crate) async fn version(sql: &mut Sql, kind: Kind) -> Result<i64, StoreError> {
    let there = match kind {
        Kind::Sqlite => "SELECT COUNT(*) AS n FROM sqlite_master WHERE type = 'table' AND name = 'modelway_schema'",
        Kind::Postgres => {
            "SELECT COUNT(*) AS n FROM pg_catalog.pg_tables \
             WHERE schemaname = current_schema() AND tablename = 'modelway_schema'"
        }
    };
    if sqlx::query(there).fetch_one(&mut *sql).await?.int("n")? == 0 {
        return Ok(0);
    }
    let newest: AnyRow = sqlx::query("SELECT MAX(version) AS newest FROM modelway_schema").fetch_one(sql).await?;
    Ok(newest.maybe_int("newest")?.unwrap_or(0))
}

async fn refuse_foreign(sql: &mut Sql) -> Result<(), StoreError> {
    let table = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 1").fetch_optional(sql).await?;
    match table {
        None => Ok(()),
        Some(row) => {
            let name: String = row.try_get("name")?;
            // Another process has finished the first migration in the meantime.
            if name == "modelway_schema" {
                return Ok(());
            }
            Err(StoreError::Corrupt { what: "schema", source: Box::new(Foreign(name)) })
        }
    }
}
