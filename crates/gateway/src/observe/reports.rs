//! Lost requests and ejected replicas, until they are reported to the control plane, which makes events of them.
//!
//! **Invariant:** a request only records what happened. The number of waiting reports is limited, and a replica is reported
//! at most once a minute.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Debug,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{
    DeploymentId, ReplicaId,
    ejected::{EJECTED_PATH, Ejected, MOST_EJECTED},
    lost::{LOST_PATH, Loss, LostRequests, MOST_IDS, MOST_LOST},
};
use base::error::chain;
use serde::Serialize;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

/// The delay after the first report, to collect further ones.
const GATHER: Duration = Duration::from_millis(500);
/// The minimum time between two reports about one replica.
const PAUSE: Duration = Duration::from_secs(60);
/// The delay after a failed report.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);
/// The timeout at shutdown.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// A report about one replica.
pub(crate) trait Report: Debug + Serialize {
    /// Reports with the same subject are combined.
    type Subject: Debug + Eq + Hash;
    /// What is reported, for the log.
    const WHAT: &str;
    /// The path on the control plane.
    const PATH: &str;
    /// The maximum number of waiting reports, and of reports in one request.
    const MOST: usize;

    fn subject(&self) -> Self::Subject;

    /// Adds a later report about the same subject.
    fn add(&mut self, later: Self);
}

impl Report for LostRequests {
    type Subject = (DeploymentId, ReplicaId, Loss);
    const WHAT: &str = "lost requests";
    const PATH: &str = LOST_PATH;
    const MOST: usize = MOST_LOST;

    fn subject(&self) -> Self::Subject {
        (self.deployment, self.replica.clone(), self.how)
    }

    fn add(&mut self, later: Self) {
        self.count += later.count;
        let room = MOST_IDS.saturating_sub(self.requests.len());
        self.requests.extend(later.requests.into_iter().take(room));
        (self.revision, self.error) = (later.revision, later.error);
        self.suspect = later.suspect.or(self.suspect.take());
    }
}

impl Report for Ejected {
    type Subject = (DeploymentId, ReplicaId);
    const WHAT: &str = "ejected replicas";
    const PATH: &str = EJECTED_PATH;
    const MOST: usize = MOST_EJECTED;

    fn subject(&self) -> Self::Subject {
        (self.deployment, self.replica.clone())
    }

    fn add(&mut self, later: Self) {
        *self = Self { key: std::mem::take(&mut self.key), count: self.count + later.count, ..later };
    }
}

/// The waiting reports.
#[derive(Debug)]
pub(crate) struct Reports<R: Report> {
    waiting: Mutex<HashMap<R::Subject, Waiting<R>>>,
    noted: Notify,
}

#[derive(Debug)]
struct Waiting<R> {
    /// `None`: everything was reported.
    report: Option<R>,
    not_before: Instant,
}

impl<R: Report> Default for Reports<R> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), noted: Notify::new() }
    }
}

impl<R: Report> Reports<R> {
    fn lock(&self) -> MutexGuard<'_, HashMap<R::Subject, Waiting<R>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a report. Reports about more than [`Report::MOST`] subjects at one time are dropped.
    pub(crate) fn note(&self, more: R) {
        let mut waiting = self.lock();
        let full = waiting.len() >= R::MOST;
        match waiting.entry(more.subject()) {
            Entry::Occupied(known) => match &mut known.into_mut().report {
                Some(report) => report.add(more),
                none => *none = Some(more),
            },
            Entry::Vacant(place) if !full => {
                place.insert(Waiting { report: Some(more), not_before: Instant::now() + GATHER });
            }
            Entry::Vacant(_) => {}
        }
        self.noted.notify_one();
    }

    /// The reports that are due; `all`: also the others.
    fn take(&self, all: bool) -> Vec<R> {
        let now = Instant::now();
        let mut due = Vec::new();
        self.lock().retain(|_, waiting| {
            if waiting.not_before > now && !all {
                return true;
            }
            waiting.not_before = now + PAUSE;
            let report = waiting.report.take();
            let keep = report.is_some();
            due.extend(report);
            keep
        });
        due
    }

    /// When the next report is due. Sent reports stay here for some time, too.
    fn due(&self) -> Option<Instant> {
        self.lock().values().map(|waiting| waiting.not_before).min()
    }
}

/// Reports to the control plane until `ended` resolves; then once more.
pub(crate) async fn tell<R: Report>(reports: &Reports<R>, control_url: &str, mut ended: oneshot::Receiver<()>) {
    let client = match base::client::builder_for(control_url).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!("cannot report {} to the control plane: {}", R::WHAT, chain(&error));
            return;
        }
    };
    let url = format!("{}{}", control_url.trim_end_matches('/'), R::PATH);
    // A failed report is repeated unchanged, so that the control plane can detect duplicates.
    let mut batch = Vec::new();
    let mut failed = false;
    loop {
        let wait = async {
            match reports.due() {
                _ if failed => tokio::time::sleep(AFTER_FAILURE).await,
                // Reports about another replica that are recorded meanwhile may be due earlier.
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = reports.noted.notified() => {}
                },
                None => reports.noted.notified().await,
            }
        };
        let last = tokio::select! {
            () = wait => false,
            _ = &mut ended => true,
        };
        if batch.is_empty() || last {
            batch.extend(reports.take(last));
            batch.truncate(R::MOST);
        }
        if !batch.is_empty() {
            let patience = if last { LAST_PATIENCE } else { PATIENCE };
            let told = client.post(&url).timeout(patience).json(&batch).send().await;
            let told = told.and_then(reqwest::Response::error_for_status);
            match told {
                Ok(_) => batch.clear(),
                // The control plane has another version or rejects the reports: a retry does not help.
                Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                    tracing::warn!("the control plane rejects reports of {}: {}", R::WHAT, chain(&error));
                    batch.clear();
                }
                Err(error) => tracing::debug!("cannot report {} yet: {}", R::WHAT, chain(&error)),
            }
            failed = !batch.is_empty();
        }
        if last {
            if failed {
                tracing::warn!("{} were not reported to the control plane: {batch:?}", R::WHAT);
            }
            return;
        }
    }
}
