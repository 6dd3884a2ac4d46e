//! Watches the route table of the control plane.
//!
//! The watch is one endless stream of lines. Changes are collected and applied together when the control plane says
//! that they are complete ([`RouteMessage::Synced`]). If the stream breaks, the gateway continues with its table, and
//! reconnects with growing delays, from its current version.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{
    Timestamp,
    route::{Change, Entry, PROTOCOL, RouteMessage, WATCH_PATH},
};
use base::{Clock, Tasks, error::chain};
use reqwest::StatusCode;
use tokio::sync::watch;

use super::{routes::Table, saved::Position};

/// The control plane sends something every five seconds; after this long without data it is considered gone.
const SILENCE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Maximum length of a line, and maximum number of changes that wait for their `Synced`.
const LONGEST_LINE: usize = 16 << 20;
const MOST_WAITING: usize = 1_000_000;

/// The state of the watch.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The URL of the control plane.
    pub(crate) url: String,
    /// The drain time at shutdown, and the longest request timeout that was seen.
    pub(crate) drain_ms: u64,
    longest_ms: AtomicU64,
    /// The watched table.
    pub(crate) table: Arc<Table>,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Clock,
    /// Whether the control plane answers.
    pub(crate) connected: AtomicBool,
    /// When the control plane last confirmed that the table is complete; microseconds since 1970, 0 for never.
    pub(crate) synced_at: AtomicI64,
    /// How often the connection to the control plane was lost.
    pub(crate) losses: AtomicU64,
}

impl Watch {
    pub(crate) fn new(url: String, drain_ms: u64, table: Arc<Table>, tasks: Tasks, clock: Clock) -> Self {
        let (longest_ms, connected, synced_at, losses) = Default::default();
        Self { url, drain_ms, longest_ms, table, tasks, clock, connected, synced_at, losses }
    }

    /// Logs a request timeout that is longer than the drain time: at shutdown such requests may be cut off.
    fn compare_with_drain(&self, changes: &[Change]) {
        let timeouts = changes.iter().filter_map(|change| match &change.entry {
            Entry::Endpoint { key, value: Some(policy) } => Some((policy.request_timeout_ms, *key)),
            Entry::Endpoint { .. } | Entry::Targets { .. } | Entry::Unknown => None,
        });
        let Some((longest, endpoint)) = timeouts.max() else { return };
        if longest > self.drain_ms && longest > self.longest_ms.fetch_max(longest, Ordering::Relaxed) {
            tracing::warn!(
                "gateway.drain_ms is {}, and requests to {endpoint} may take {longest} ms: raise it, or a gateway that \
                 is told to end cuts the longest of them off",
                self.drain_ms
            );
        }
    }
}

/// Watches until the tasks are told to end. `position` is the position of the table, and notifies others of changes.
pub(crate) async fn run(watch: Arc<Watch>, position: watch::Sender<Position>) {
    let client = match base::client::builder_for(&watch.url).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!("cannot watch the control plane: {}", chain(&error));
            return;
        }
    };
    let mut pause = FIRST_PAUSE;
    let mut failing = false;
    loop {
        let mut synced = false;
        let ended = tokio::select! {
            ended = follow(&watch, &client, &position, &mut synced) => ended,
            () = watch.tasks.stopping() => return,
        };
        let was_connected = watch.connected.swap(false, Ordering::AcqRel);
        watch.losses.fetch_add(1, Ordering::Relaxed);
        if synced {
            (pause, failing) = (FIRST_PAUSE, false);
        }
        if was_connected || !failing {
            let (url, held) = (&watch.url, watch.table.endpoints());
            tracing::warn!(
                "lost the control plane at {url}: {ended}; serving the {held} known endpoints and reconnecting"
            );
        }
        failing = true;
        // Jitter: gateways that lost the same control plane should not reconnect all at once.
        let jittered = pause.mul_f64(rand::random_range(0.5..1.5));
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            () = watch.tasks.stopping() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Follows one stream until it ends; returns the reason.
async fn follow(
    watch: &Watch,
    client: &reqwest::Client,
    position: &watch::Sender<Position>,
    synced: &mut bool,
) -> String {
    let from = position.borrow().clone();
    let base = watch.url.trim_end_matches('/');
    let mut url = format!("{base}{WATCH_PATH}?protocol={PROTOCOL}");
    if let Some(epoch) = &from.epoch {
        url = format!("{url}&epoch={epoch}&after={}", from.version);
    }
    let asking = tokio::time::timeout(SILENCE, client.get(url).send());
    let mut response = match asking.await {
        Ok(Ok(response)) if response.status().is_success() => response,
        Ok(Ok(response)) if response.status() == StatusCode::BAD_REQUEST => {
            return format!(
                "it does not speak version {PROTOCOL} of the watch's protocol, as this gateway does: upgrade the control \
                 plane first"
            );
        }
        Ok(Ok(response)) => return format!("it answered {}", response.status()),
        Ok(Err(error)) => return chain(&error),
        Err(_) => return "it did not answer".to_owned(),
    };
    let mut lines = Lines::default();
    let mut batch = Batch { epoch: from.epoch, changes: Vec::new(), reset: false };
    loop {
        let chunk = match tokio::time::timeout(SILENCE, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return "it closed the watch".to_owned(),
            Ok(Err(error)) => return chain(&error),
            Err(_) => return format!("it sent nothing for {} s", SILENCE.as_secs()),
        };
        lines.add(&chunk);
        // All changes in one chunk are applied at once, so the table changes at most once per chunk.
        let mut complete = None;
        while let Some(line) = lines.next() {
            match serde_json::from_slice(&line) {
                Ok(RouteMessage::Hello { epoch, reset }) => {
                    batch = Batch { epoch: Some(epoch), changes: Vec::new(), reset };
                }
                Ok(RouteMessage::Change(change)) => batch.changes.push(change),
                Ok(RouteMessage::Synced { version }) => complete = Some((version, batch.changes.len())),
                Err(error) => {
                    return format!(
                        "it sent a message that this gateway does not understand ({error}); check that both have the same version"
                    );
                }
            }
        }
        if lines.rest.len() > LONGEST_LINE || batch.changes.len() > MOST_WAITING {
            return "it sent more than a route table can be".to_owned();
        }
        if let Some((version, count)) = complete {
            let later = batch.changes.split_off(count);
            let changes = std::mem::replace(&mut batch.changes, later);
            let moved = !changes.is_empty() || batch.reset || !watch.table.holds() || watch.table.version() != version;
            if moved {
                watch.compare_with_drain(&changes);
                watch.table.apply(changes, version, std::mem::take(&mut batch.reset));
                position.send_replace(Position { epoch: batch.epoch.clone(), version });
            }
            watch.synced_at.store(Timestamp::from(watch.clock.now()).0, Ordering::Release);
            if !watch.connected.swap(true, Ordering::AcqRel) {
                tracing::info!("watching {base}: {} endpoints at version {version}", watch.table.endpoints());
            }
            *synced = true;
        }
    }
}

struct Batch {
    epoch: Option<String>,
    changes: Vec<Change>,
    reset: bool,
}

/// Splits a stream into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    read: usize,
}

impl Lines {
    fn add(&mut self, chunk: &[u8]) {
        self.rest.drain(..self.read);
        self.read = 0;
        self.rest.extend_from_slice(chunk);
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let after = self.rest.get(self.read..)?;
            let length = after.iter().position(|byte| *byte == b'\n')?;
            let line = after[..length].to_vec();
            self.read += length + 1;
            if !line.is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in ["{\"a\"", ":1}\n\n{\"b", "\":2}", "\n{\"c\":3}\n{"] {
            lines.add(piece.as_bytes());
            while let Some(line) = lines.next() {
                found.push(String::from_utf8(line).expect("text"));
            }
        }
        assert_eq!(found, [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
    }
}
