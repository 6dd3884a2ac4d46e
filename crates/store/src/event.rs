//! Events.

mod id;

use api::{DeploymentId, Event, RevisionNumber, Timestamp, event::NewEvent};
use sqlx::any::AnyRow;

use crate::{
    Idempotent, Page, Store, StoreError, idempotency,
    row::{Columns as _, clean, json},
    transaction::{Care, Write},
};

/// Maximum length of a stored message, in bytes: messages may contain log lines and causes.
const MAX_MESSAGE: usize = 8 * 1024;
/// How many events one statement writes.
const BATCH: usize = 50;

/// The order of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    #[default]
    OldestFirst,
    /// Newest first.
    NewestFirst,
}

/// The columns that [`read`] needs, for the given events.
macro_rules! select_events {
    ($which:literal) => {
        concat!("SELECT id, deployment, revision, at, actor, kind, message, evidence FROM event ", $which)
    };
}

impl Store {
    /// A page of events of one deployment or of all, in `order`, from the one that follows `after` in it. Those
    /// of a deployment that is gone are still there. Who goes on after the last event that it saw misses none: what a
    /// transaction in progress may still come before is not shown yet.
    pub async fn event_list(
        &self,
        deployment: Option<DeploymentId>,
        order: Order,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<Event>, StoreError> {
        let limit = i64::from(limit.max(1));
        let text = match (deployment, order) {
            (Some(_), Order::OldestFirst) => {
                select_events!("WHERE id > $1 AND id <= $3 AND deployment = $4 ORDER BY id LIMIT $2")
            }
            (Some(_), Order::NewestFirst) => {
                select_events!("WHERE id < $1 AND id <= $3 AND deployment = $4 ORDER BY id DESC LIMIT $2")
            }
            (None, Order::OldestFirst) => select_events!("WHERE id > $1 AND id <= $3 ORDER BY id LIMIT $2"),
            (None, Order::NewestFirst) => select_events!("WHERE id < $1 AND id <= $3 ORDER BY id DESC LIMIT $2"),
        };
        let start = match order {
            Order::OldestFirst => 0,
            Order::NewestFirst => i64::MAX,
        };
        let mut sql = self.read().await?;
        let horizon = id::horizon(&mut sql, self.kind).await?;
        let query = sqlx::query(text).bind(after.unwrap_or(start)).bind(limit + 1).bind(horizon);
        let query = match deployment {
            Some(id) => query.bind(id.0),
            None => query,
        };
        let rows = query.fetch_all(&mut *sql).await?;
        Page::cut(rows, limit, read, |event| event.id)
    }

    /// Writes an event that does not come from a worker. `key` identifies it: if the same key was written within a day,
    /// or the deployment was removed, nothing is written.
    pub async fn event_once(
        &self,
        deployment: DeploymentId,
        key: &str,
        event: NewEvent,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut sql = self.write(Care::Recoverable).await?;
        let known = sqlx::query("SELECT id FROM deployment WHERE id = $1").bind(deployment.0);
        let key = Idempotent { key: format!("\u{1}event:{key}"), payload: String::new() };
        if known.fetch_optional(&mut *sql).await?.is_none()
            || idempotency::claim(&mut sql, &key, deployment, now).await?.is_some()
        {
            return sql.abandon().await;
        }
        write(&mut sql, deployment, &[event], now).await?;
        sql.commit().await
    }
}

fn read(row: &AnyRow) -> Result<Event, StoreError> {
    let revision = match row.maybe_int("revision")? {
        Some(_) => Some(RevisionNumber(row.small("revision")?)),
        None => None,
    };
    Ok(Event {
        id: row.int("id")?,
        deployment: DeploymentId(row.int("deployment")?),
        revision,
        at: Timestamp(row.int("at")?),
        actor: row.text("actor")?,
        kind: row.text("kind")?,
        message: row.text("message")?,
        evidence: row.json("evidence", "event's evidence")?,
    })
}

/// Writes events in the given order.
pub(crate) async fn write(
    sql: &mut Write,
    deployment: DeploymentId,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let kind = sql.kind();
    let ids = id::take(sql, kind, events.len(), now).await?;
    for (ids, events) in ids.chunks(BATCH).zip(events.chunks(BATCH)) {
        let text = insertion(events.len());
        let mut query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(deployment.0).bind(now.0);
        for (id, event) in ids.iter().zip(events) {
            query = query
                .bind(*id)
                .bind(event.revision.map(|number| i64::from(number.0)))
                .bind(event.actor)
                .bind(event.kind)
                .bind(clean(&event.message[..event.message.floor_char_boundary(MAX_MESSAGE)]))
                .bind(json(&event.evidence)?);
        }
        query.execute(&mut **sql).await?;
    }
    Ok(())
}

/// The statement that writes so many events.
fn insertion(count: usize) -> String {
    let rows = (0..count).map(|row| {
        let at = |column: usize| 3 + row * 6 + column;
        format!("(${}, $1, ${}, $2, ${}, ${}, ${}, ${})", at(0), at(1), at(2), at(3), at(4), at(5))
    });
    let rows: Vec<_> = rows.collect();
    format!(
        "INSERT INTO event (id, deployment, revision, at, actor, kind, message, evidence) VALUES {}",
        rows.join(", ")
    )
}
