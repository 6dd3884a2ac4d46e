//! Lost requests, until they are reported to the control plane, which makes events of them.
//!
//! **Invariant:** a request only records its loss. The number of waiting reports is limited, and a replica is reported
//! at most once a minute.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{
    DeploymentId, ReplicaId,
    lost::{LOST_PATH, Loss, LostRequests, MOST_IDS, MOST_LOST},
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::wire::refusal::causes;

/// The delay after a loss, to collect further ones.
const GATHER: Duration = Duration::from_millis(500);
/// The minimum time between two reports about one replica.
const PAUSE: Duration = Duration::from_secs(60);
/// The delay after a failed report.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);
/// The timeout at shutdown.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// The waiting reports.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    waiting: Mutex<HashMap<(DeploymentId, ReplicaId, Loss), Waiting>>,
    noted: Notify,
}

#[derive(Debug)]
struct Waiting {
    /// `None`: everything was reported.
    lost: Option<LostRequests>,
    not_before: Instant,
}

impl Lost {
    fn lock(&self) -> MutexGuard<'_, HashMap<(DeploymentId, ReplicaId, Loss), Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records requests. Losses of more than [`MOST_LOST`] replicas at one time are only logged.
    pub(crate) fn note(&self, more: LostRequests) {
        let mut waiting = self.lock();
        let full = waiting.len() >= MOST_LOST;
        match waiting.entry((more.deployment, more.replica.clone(), more.how)) {
            Entry::Occupied(known) => match &mut known.into_mut().lost {
                Some(lost) => {
                    lost.count += more.count;
                    let room = MOST_IDS.saturating_sub(lost.requests.len());
                    lost.requests.extend(more.requests.into_iter().take(room));
                    (lost.revision, lost.error) = (more.revision, more.error);
                    lost.suspect = more.suspect.or(lost.suspect.take());
                }
                none => *none = Some(more),
            },
            Entry::Vacant(place) if !full => {
                place.insert(Waiting { lost: Some(more), not_before: Instant::now() + GATHER });
            }
            Entry::Vacant(_) => {}
        }
        self.noted.notify_one();
    }

    /// The reports that are due; `all`: also the others.
    fn take(&self, all: bool) -> Vec<LostRequests> {
        let now = Instant::now();
        let mut due = Vec::new();
        self.lock().retain(|_, waiting| {
            if waiting.not_before > now && !all {
                return true;
            }
            waiting.not_before = now + PAUSE;
            let lost = waiting.lost.take();
            let keep = lost.is_some();
            due.extend(lost);
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
pub(crate) async fn tell(lost: &Lost, control_url: &str, mut ended: oneshot::Receiver<()>) {
    let client = match base::client::builder_for(control_url).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!("cannot report lost requests to the control plane: {}", causes(&error));
            return;
        }
    };
    let url = format!("{}{LOST_PATH}", control_url.trim_end_matches('/'));
    // A failed report is repeated unchanged, so that the control plane can detect duplicates.
    let mut batch = Vec::new();
    let mut failed = false;
    loop {
        let wait = async {
            match lost.due() {
                _ if failed => tokio::time::sleep(AFTER_FAILURE).await,
                // Losses of another replica that are recorded meanwhile may be due earlier.
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = lost.noted.notified() => {}
                },
                None => lost.noted.notified().await,
            }
        };
        let last = tokio::select! {
            () = wait => false,
            _ = &mut ended => true,
        };
        if batch.is_empty() || last {
            batch.extend(lost.take(last));
            batch.truncate(MOST_LOST);
        }
        if !batch.is_empty() {
            let patience = if last { LAST_PATIENCE } else { PATIENCE };
            let told = client.post(&url).timeout(patience).json(&batch).send().await;
            let told = told.and_then(reqwest::Response::error_for_status);
            match told {
                Ok(_) => batch.clear(),
                // The control plane has another version or rejects the reports: a retry does not help.
                Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                    tracing::warn!("the control plane rejects reports of lost requests: {}", causes(&error));
                    batch.clear();
                }
                Err(error) => tracing::debug!("cannot report lost requests yet: {}", causes(&error)),
            }
            failed = !batch.is_empty();
        }
        if last {
            if failed {
                tracing::warn!("lost requests were not reported to the control plane: {batch:?}");
            }
            return;
        }
    }
}
