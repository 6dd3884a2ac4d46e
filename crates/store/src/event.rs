//! Events.

use api::{DeploymentId, Event, RevisionNumber, Timestamp, event::NewEvent};
use sqlx::any::AnyRow;

use crate::{
    Idempotent, Page, Sql, Store, StoreError,
    counter::Counter,
    idempotency,
    row::{Columns as _, clean, json},
    transaction::Care,
};

/// Maximum length of a stored message, in bytes: messages may contain log lines and causes.
const MAX_MESSAGE: usize = 8 * 1024;

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
    /// A page of events of one deployment or of all, in `order`, after the event `after`. Includes events of removed
    /// deployments.
    pub async fn event_list(
        &self,
        deployment: Option<DeploymentId>,
        order: Order,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<Event>, StoreError> {
        let limit = i64::from(limit.max(1));
        let text = match (deployment, order) {
            (Some(_), Order::OldestFirst) => select_events!("WHERE id > $1 AND deployment = $3 ORDER BY id LIMIT $2"),
            (Some(_), Order::NewestFirst) => {
                select_events!("WHERE id < $1 AND deployment = $3 ORDER BY id DESC LIMIT $2")
            }
            (None, Order::OldestFirst) => select_events!("WHERE id > $1 ORDER BY id LIMIT $2"),
            (None, Order::NewestFirst) => select_events!("WHERE id < $1 ORDER BY id DESC LIMIT $2"),
        };
        let start = match order {
            Order::OldestFirst => 0,
            Order::NewestFirst => i64::MAX,
        };
        let query = sqlx::query(text).bind(after.unwrap_or(start)).bind(limit + 1);
        let query = match deployment {
            Some(id) => query.bind(id.0),
            None => query,
        };
        let rows = query.fetch_all(&mut *self.read().await?).await?;
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
        let key = Idempotent { key: format!("event:{key}"), payload: String::new() };
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
    sql: &mut Sql,
    deployment: DeploymentId,
    events: &[NewEvent],
    now: Timestamp,
) -> Result<(), StoreError> {
    let Ok(count @ 1..) = i64::try_from(events.len()) else { return Ok(()) };
    let first = Counter::Event.take(sql, count).await?;
    for (id, event) in (first..).zip(events) {
        sqlx::query(
            "INSERT INTO event (id, deployment, revision, at, actor, kind, message, evidence) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(id)
        .bind(deployment.0)
        .bind(event.revision.map(|number| i64::from(number.0)))
        .bind(now.0)
        .bind(event.actor)
        .bind(event.kind)
        .bind(clean(&event.message[..event.message.floor_char_boundary(MAX_MESSAGE)]))
        .bind(json(&event.evidence)?)
        .execute(&mut *sql)
        .await?;
    }
    Ok(())
}
