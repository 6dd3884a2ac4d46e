//! The route watch, from which gateways get their routes.
//!
//! Each watcher is a stream with its own cursor. It reads SQL page by page at the speed of its gateway. So for a table
//! of 100,000 routes a watcher needs memory for one page, and a slow gateway delays no other. All watchers share one
//! lookout task, which runs while there are watchers. It asks the database for versions newer than the newest one that
//! was read: at once after a commit of this process, otherwise every [`Config::watch_poll_ms`].
//!
//! A watcher that cannot read ends its stream. Its gateway keeps serving with its last table, and retries.
//!
//! If the database turns out to be an older copy of itself, or has a new epoch, all streams end. Gateways that
//! reconnect get the whole table.
//!
//! A gateway of 0.1.0 sends no protocol version and gets whole routes, because control planes are upgraded before
//! gateways.
//!
//! **Invariant:** this module stores no route. The lookout knows only a version number and an epoch.

use std::{convert::Infallible, sync::Arc, time::Duration};

use api::route::RouteMessage;
use base::Tasks;
use bytes::Bytes;
use futures::Stream;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use store::{RoutePage, Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{Config, error::Error};

/// Maximum number of changes that are read, and held in memory, at once.
const PAGE: u32 = 512;

/// How long the lookout pauses after a database error.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The state that the watchers of this process share.
pub(crate) struct Hub {
    store: Store,
    tasks: Tasks,
    poll: Duration,
    heartbeat: Duration,
    newest: watch::Sender<Newest>,
    places: Arc<Semaphore>,
    most: usize,
    watching: watch::Sender<usize>,
    gauge: Gauge,
}

/// What is known about the table in the database.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    /// A version that the table has reached: watchers below it have something to read.
    version: i64,
    /// How often the database was replaced by another one or an older copy of itself. Streams of an earlier history
    /// end.
    history: u64,
}

/// The position of a gateway's table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    /// The epoch of its table.
    pub(crate) epoch: Option<String>,
    /// The version of its table.
    pub(crate) after: i64,
    /// The format of the changes that it gets.
    pub(crate) form: Form,
}

/// The format of the changes for a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Whole routes, as for gateways of 0.1.0.
    One,
    /// Entries by kind.
    #[default]
    Two,
}

impl Form {
    /// The format for a protocol version; `None` if this control plane does not support it.
    pub(crate) fn of(protocol: i64) -> Option<Self> {
        match protocol {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            _ => None,
        }
    }
}

impl Hub {
    pub(crate) fn new(store: Store, config: &Config, tasks: Tasks, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self {
            store,
            tasks,
            poll: Duration::from_millis(config.watch_poll_ms),
            heartbeat: Duration::from_millis(config.watch_heartbeat_ms),
            newest: watch::Sender::new(Newest::default()),
            places: Arc::new(Semaphore::new(config.max_watchers)),
            most: config.max_watchers,
            watching: watch::Sender::new(0),
            gauge,
        })
    }

    /// Starts the lookout.
    pub(crate) fn start(self: &Arc<Self>) {
        let hub = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = hub.look_out() => {}
                () = hub.tasks.stopping() => {}
            }
        });
    }

    async fn look_out(&self) {
        let mut hints = self.store.hints();
        let mut watching = self.watching.subscribe();
        let mut failing = false;
        let mut epoch = None;
        loop {
            if watching.wait_for(|count| *count > 0).await.is_err() {
                return;
            }
            hints.mark_unchanged();
            let known = *self.newest.borrow();
            match self.look(known).await {
                Ok((version, now)) => {
                    failing = false;
                    let before = epoch.replace(now);
                    if version < known.version || before.is_some() && before != epoch {
                        tracing::warn!("the database was replaced or restored: all route watches restart");
                        self.newest.send_modify(|newest| *newest = Newest { version, history: newest.history + 1 });
                    } else {
                        self.seen(version, known.history);
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!("cannot check for new routes: {}", base::error::chain(&error));
                    }
                    failing = true;
                    tokio::time::sleep(REST_AFTER_FAILURE).await;
                    continue;
                }
            }
            tokio::select! {
                changed = hints.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(self.poll) => {}
            }
        }
    }

    /// The version of the table, and the epoch.
    async fn look(&self, known: Newest) -> Result<(i64, String), StoreError> {
        let page = self.store.route_changes(known.version, 1).await?;
        Ok((page.version, self.store.epoch().await?))
    }

    /// Tells the watchers that the table has reached `version`, if that is new in the current history.
    fn seen(&self, version: i64, history: u64) {
        self.newest.send_if_modified(|newest| {
            let news = history == newest.history && version > newest.version;
            if news {
                newest.version = version;
            }
            news
        });
    }

    /// Registers a watcher, and returns the first line of its stream.
    pub(crate) async fn join(self: &Arc<Self>, cursor: Cursor) -> Result<Watcher, Error> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Error::Busy(format!(
                "{} gateways already watch the routes here (control.max_watchers); ask another control plane",
                self.most
            ))
        })?;
        let history = self.newest.borrow().history;
        let epoch = self.store.epoch().await?;
        let mut reset = cursor.epoch.as_deref() != Some(epoch.as_str()) || cursor.after <= 0;
        let mut page = self.store.route_changes(if reset { 0 } else { cursor.after }, PAGE).await?;
        // The database went back in time, for example after a restore, or the gateway was disconnected for so long that
        // some deletions are no longer recorded. The gateway must discard its table.
        if !reset && (page.version < cursor.after || cursor.after < page.pruned) {
            reset = true;
            page = self.store.route_changes(0, PAGE).await?;
        }
        self.watching.send_modify(|count| *count += 1);
        self.gauge.inc();
        Ok(Watcher {
            hub: Arc::clone(self),
            history,
            hello: RouteMessage::Hello { epoch, reset },
            form: cursor.form,
            since: if reset { 0 } else { cursor.after },
            first: Some(page),
            _place: place,
        })
    }
}

/// The watch of one gateway.
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    history: u64,
    hello: Line,
    form: Form,
    /// The version up to which the gateway has all changes.
    since: i64,
    first: Option<RoutePage>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.watching.send_modify(|count| *count = count.saturating_sub(1));
        self.hub.gauge.dec();
    }
}

impl Watcher {
    /// The lines: first the greeting, then pages of changes with a `Synced` after each complete set, then new changes
    /// until shutdown.
    pub(crate) fn lines(mut self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        async_stream::stream! {
            let hub = Arc::clone(&self.hub);
            let mut newest = hub.newest.subscribe();
            let Some(mut page) = self.first.take() else { return };
            let mut chunk = Vec::new();
            push(&mut chunk, &self.hello);
            // Deletions that were forgotten before the first page are in no page.
            let pruned = page.pruned;
            let mut since = self.since;
            loop {
                let (cursor, more) = (page.version, page.more);
                match self.form {
                    Form::One => push_changes(&mut chunk, page.whole_routes()),
                    Form::Two => push_changes(&mut chunk, page.changes(since)),
                }
                if !more {
                    push(&mut chunk, &synced(cursor));
                    // Another watcher may have waited since before these changes.
                    hub.seen(cursor, self.history);
                    since = cursor;
                }
                yield Ok(Bytes::from(std::mem::take(&mut chunk)));
                if !more {
                    while !hub.wait(&mut newest, cursor, self.history).await {
                        if hub.tasks.is_stopping() {
                            return;
                        }
                        push(&mut chunk, &synced(cursor));
                        yield Ok(Bytes::from(std::mem::take(&mut chunk)));
                    }
                }
                if newest.borrow().history != self.history {
                    return;
                }
                page = match hub.store.route_changes(cursor, PAGE).await {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::warn!("a route watch ends: {}", base::error::chain(&error));
                        return;
                    }
                };
                if pruned < page.pruned && cursor < page.pruned {
                    tracing::warn!("a route watch ends: its gateway reads too slowly to get all deletions");
                    return;
                }
                // A page that goes back would make the gateway loop.
                page.version = page.version.max(cursor);
            }
        }
    }
}

impl Hub {
    /// Waits for a version above `cursor` or another history: true. False at the heartbeat interval or at shutdown.
    async fn wait(&self, newest: &mut watch::Receiver<Newest>, cursor: i64, history: u64) -> bool {
        tokio::select! {
            found = newest.wait_for(|newest| newest.version > cursor || newest.history != history) => found.is_ok(),
            () = tokio::time::sleep(self.heartbeat) => false,
            () = self.tasks.stopping() => false,
        }
    }
}

/// A line of the watch that is the same in every format.
type Line = RouteMessage<()>;

fn synced(version: i64) -> Line {
    RouteMessage::Synced { version }
}

fn push_changes<C: Serialize>(chunk: &mut Vec<u8>, changes: Vec<C>) {
    for change in changes {
        push(chunk, &RouteMessage::Change(change));
    }
}

fn push<C: Serialize>(chunk: &mut Vec<u8>, message: &RouteMessage<C>) {
    match serde_json::to_writer(&mut *chunk, message) {
        Ok(()) => chunk.push(b'\n'),
        Err(error) => tracing::error!("a route cannot be written as JSON: {error}"),
    }
}
