//! Ids of events.
//!
//! An id is the tenths of a second since 1970, shifted left by 18 bits, and a number below that. It grows with time and stays
//! below 2^53, so that JavaScript reads it exactly, until the year 2078.
//!
//! **A reader who goes on after the last id that it saw misses nothing.** On SQLite there is one writer at a time, so ids
//! commit in their order. On PostgreSQL many transactions take ids at the same time, without a row that they would wait for,
//! and commit in any order. There each writer holds an advisory lock from before it takes an id until it has committed, and
//! readers leave out what a transaction in progress may still come before ([`horizon`]). The rule is in
//! `migrations/0007_event_ids_postgres.sql`. It needs no clock to be right: an id is always greater than all that were committed
//! when its writer began.

use api::Timestamp;

use crate::{Sql, StoreError, connect::Kind, row::Columns as _};

const MICROS_IN_TICK: i64 = 100_000;
const LOW_BITS: u32 = 18;
/// Ids stay below 2^53 whatever a clock says.
const LAST_TICK: i64 = (1 << (53 - LOW_BITS)) - 2;

fn tick(now: Timestamp) -> i64 {
    (now.0 / MICROS_IN_TICK).clamp(0, LAST_TICK)
}

/// Takes `count` ids, in their order.
pub(crate) async fn take(sql: &mut Sql, kind: Kind, count: usize, now: Timestamp) -> Result<Vec<i64>, StoreError> {
    let many = i64::try_from(count).unwrap_or(i64::MAX);
    match kind {
        Kind::Sqlite => {
            // The counter holds the newest id, also for processes of earlier versions.
            let row = sqlx::query(
                "UPDATE counter SET value = MAX(value + $1, $2 + $1 - 1) WHERE name = 'event' RETURNING value",
            )
            .bind(many)
            .bind(tick(now) << LOW_BITS)
            .fetch_one(sql)
            .await?;
            let last = row.int("value")?;
            Ok((last - many + 1..=last).collect())
        }
        Kind::Postgres => {
            let rows = sqlx::query("SELECT id FROM modelway_event_ids($1, $2) AS id")
                .bind(tick(now))
                .bind(many)
                .fetch_all(sql)
                .await?;
            rows.iter().map(|row| row.int("id")).collect()
        }
    }
}

/// The newest id that a reader may be shown: no event will be committed later with this id or a smaller one.
pub(crate) async fn horizon(sql: &mut Sql, kind: Kind) -> Result<i64, StoreError> {
    if kind == Kind::Sqlite {
        return Ok(i64::MAX);
    }
    // One statement sees rows as they were when it began, and locks as they are later: so the id is the older one.
    let row = sqlx::query(
        "SELECT coalesce(max(id), 0) AS newest, (SELECT min((CAST(classid AS BIGINT) & 15) << 32 | CAST(objid AS BIGINT)) \
         FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND CAST(classid AS BIGINT) >> 4 = 19799 \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS tick FROM event",
    )
    .fetch_one(sql)
    .await?;
    let newest = row.int("newest")?;
    Ok(match row.maybe_int("tick")? {
        Some(tick) => newest.min((tick << LOW_BITS) - 1),
        None => newest,
    })
}
