//! The database's own way of hints: PostgreSQL's LISTEN and NOTIFY. SQLite has none.
//!
//! Each worker listens on a channel of its own, so a hint wakes only the worker that was chosen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{DeploymentId, deployment::DEFAULT_PLACEMENT};
use async_trait::async_trait;
use futures::{StreamExt as _, stream, stream::BoxStream};
use sqlx::{AssertSqlSafe, postgres::PgListener};
use wake::{Polling, WakeError, WakeUps, chosen};

use crate::{Store, StoreError, connect::Place, row::Columns as _};

/// Before each channel's name stands this. PostgreSQL cuts names after 63 bytes; a worker's has 23.
const CHANNEL: &str = "modelway_wake_";
/// The ids in one notification, which holds 8,000 bytes.
const IDS: usize = 300;
/// The wait before another attempt to listen.
const PAUSE: Duration = Duration::from_secs(1);

impl Store {
    /// The way on which this database carries hints. On SQLite: none.
    #[must_use]
    pub fn wake_ups(&self) -> Arc<dyn WakeUps> {
        match &*self.place {
            Place::Postgres(_) => Arc::new(Notifications(self.clone())),
            Place::Memory | Place::File(_) => Arc::new(Polling),
        }
    }
}

/// Hints as notifications.
struct Notifications(Store);

impl Notifications {
    async fn notify(&self, ids: &[DeploymentId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let place = |placement: Option<String>| placement.unwrap_or_else(|| DEFAULT_PLACEMENT.to_owned());
        let mut workers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in sqlx::query("SELECT id, placement FROM worker").fetch_all(&self.0.pool).await? {
            workers.entry(place(row.maybe_text("placement")?)).or_default().push(row.text("id")?);
        }
        // Only our own numbers are in the text.
        let list = ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",");
        let text = format!("SELECT id, placement FROM deployment WHERE id IN ({list})");
        let mut placed = BTreeMap::new();
        for row in sqlx::query(AssertSqlSafe(text)).fetch_all(&self.0.pool).await? {
            placed.insert(row.int("id")?, row.text("placement")?);
        }
        let mut shares: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for id in ids {
            let own = workers.get(placed.get(&id.0).map_or(DEFAULT_PLACEMENT, String::as_str));
            if let Some(worker) = chosen(own.into_iter().flatten().map(String::as_str), *id) {
                shares.entry(worker).or_default().push(id.0.to_string());
            }
        }
        for (worker, ids) in shares {
            for ids in ids.chunks(IDS) {
                sqlx::query("SELECT CAST(pg_notify($1, $2) AS TEXT)")
                    .bind(format!("{CHANNEL}{worker}"))
                    .bind(ids.join(","))
                    .execute(&self.0.pool)
                    .await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl WakeUps for Notifications {
    async fn publish(&self, ids: &[DeploymentId]) -> Result<(), WakeError> {
        self.notify(ids).await.map_err(|error| WakeError { way: "postgres", source: error.into() })
    }

    fn listen(&self, worker: &str) -> BoxStream<'static, DeploymentId> {
        let Place::Postgres(url) = &*self.0.place else { return stream::pending().boxed() };
        let (url, channel) = (url.clone(), format!("{CHANNEL}{worker}"));
        stream::unfold((url, channel, None), async |(url, channel, mut listener)| {
            loop {
                match hear(&url, &channel, &mut listener).await {
                    Ok(ids) => return Some((stream::iter(ids), (url, channel, listener))),
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "no hints come from PostgreSQL; the worker looks for tasks and tries again"
                        );
                        listener = None;
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        })
        .flatten()
        .boxed()
    }
}

/// The ids of the next notification. Connects first where there is no `listener`.
async fn hear(url: &str, channel: &str, listener: &mut Option<PgListener>) -> Result<Vec<DeploymentId>, sqlx::Error> {
    let connected = match listener {
        Some(connected) => connected,
        None => {
            let mut connected = PgListener::connect(url).await?;
            connected.listen(channel).await?;
            listener.insert(connected)
        }
    };
    let notification = connected.recv().await?;
    // Another program's notification on this channel holds no ids.
    Ok(notification.payload().split(',').filter_map(|id| Some(DeploymentId(id.parse().ok()?))).collect())
}
