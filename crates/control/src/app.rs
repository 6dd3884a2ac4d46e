//! The use cases, one file per noun. They use the store and the types of `api`, and know nothing about HTTP.

pub(crate) mod deployment;
pub(crate) mod event;
pub(crate) mod log;
mod placement;
pub(crate) mod precondition;
pub(crate) mod registry;

use std::{sync::Arc, time::Duration};

use api::{State, Timestamp};
use base::{Clock, Tasks};
use store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wake::Announcer;

use crate::{Config, error::Error, metrics::Metrics, watch::Hub};

/// Timeout of the database check in a health check.
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// The state of every handler.
pub(crate) type Shared = Arc<App>;

/// The state that every request needs.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) watch: Arc<Hub>,
    /// Tasks that end at shutdown, before [`crate::run`] returns.
    pub(crate) tasks: Tasks,
    log_streams: Arc<Semaphore>,
}

impl App {
    pub(crate) fn new(config: Config, store: Store, announcer: Announcer, tasks: Tasks, clock: Clock) -> Self {
        let metrics = Metrics::new(announcer.failed());
        let store = store.announcing(announcer);
        let watch = Hub::new(store.clone(), &config, tasks.clone(), metrics.route_watchers.clone());
        let log_streams = Arc::new(Semaphore::new(config.max_log_streams));
        Self { config, store, clock, metrics, watch, tasks, log_streams }
    }

    fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// Whether the database answers.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        match tokio::time::timeout(PING_PATIENCE, self.store.ping()).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::Away {
                code: "database_unavailable",
                detail: format!("the database has not answered for {} s", PING_PATIENCE.as_secs()),
                source: None,
            }),
        }
    }

    /// The number of deployments in each state; `None` while the database does not answer.
    pub(crate) async fn deployment_counts(&self) -> Option<Vec<(State, u64)>> {
        match tokio::time::timeout(PING_PATIENCE, self.store.deployment_count()).await {
            Ok(Ok(counts)) => Some(counts),
            Ok(Err(error)) => {
                tracing::debug!("cannot count the deployments: {}", base::error::chain(&error));
                None
            }
            Err(_) => None,
        }
    }

    fn log_stream_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.log_streams).try_acquire_owned().map_err(|_| {
            let most = self.config.max_log_streams;
            Error::Busy(format!("{most} logs are being read already (control.max_log_streams); try again later"))
        })
    }
}
