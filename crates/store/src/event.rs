//! The decision log.

use api::{DeploymentId, Event, RevisionNumber, Timestamp, event::NewEvent};
use sqlx::any::AnyRow;

use crate::{
    Page, Sql, Store, StoreError,
    counter::Counter,
    row::{Columns as _, clean, json},
};

/// The longest message that is kept, in bytes: log lines and causes find their way into messages.
const MAX_MESSAGE: usize = 8 * 1024;

impl Store {
    /// A page of events after `after`, oldest first, of one deployment or of all. Those of a deployment
    /// that is gone are still there.
    pub async fn event_list(
        &self,
        deployment: Option<DeploymentId>,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<Event>, StoreError> {
        let limit = i64::from(limit.max(1));
        let query = match deployment {
            Some(id) => sqlx::query(
                "SELECT id, deployment, revision, at, actor, kind, message, evidence FROM event \
                 WHERE id > $1 AND deployment = $3 ORDER BY id LIMIT $2",
            )
            .bind(after.unwrap_or(0))
            .bind(limit + 1)
            .bind(id.0),
            None => sqlx::query(
                "SELECT id, deployment, revision, at, actor, kind, message, evidence FROM event \
                 WHERE id > $1 ORDER BY id LIMIT $2",
            )
            .bind(after.unwrap_or(0))
            .bind(limit + 1),
        };
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        Page::cut(rows, limit, read, |event| event.id)
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

/// Writes events in their order.
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
