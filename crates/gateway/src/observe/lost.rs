//! Requests that were lost with a replica, until the control plane knows of them: it makes events of them.
//!
//! **Invariant:** a request only notes its loss. What waits is bounded, and a replica is told of once a minute at most.

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

/// After a loss, so long for others to come with it.
const GATHER: Duration = Duration::from_millis(500);
/// Between two words about one replica.
const PAUSE: Duration = Duration::from_secs(60);
/// After the control plane did not take them.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);
/// At the end.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// What waits to be told.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    waiting: Mutex<HashMap<(DeploymentId, ReplicaId, Loss), Waiting>>,
    noted: Notify,
}

#[derive(Debug)]
struct Waiting {
    /// `None`: everything was told.
    lost: Option<LostRequests>,
    not_before: Instant,
}

impl Lost {
    fn lock(&self) -> MutexGuard<'_, HashMap<(DeploymentId, ReplicaId, Loss), Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes requests. Losses of more than [`MOST_LOST`] replicas at one time are in the log only.
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

    /// What is due; `all`: also what is not.
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

    /// When something is due next. Also what was told stands here for a while.
    fn due(&self) -> Option<Instant> {
        self.lock().values().map(|waiting| waiting.not_before).min()
    }
}

/// Tells the control plane, until `ended` resolves; then once more.
pub(crate) async fn tell(lost: &Lost, control_url: &str, mut ended: oneshot::Receiver<()>) {
    let client = match base::client::builder_for(control_url).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!("the control plane cannot be told of lost requests: {}", causes(&error));
            return;
        }
    };
    let url = format!("{}{LOST_PATH}", control_url.trim_end_matches('/'));
    // What the control plane has not taken is told again as it is, so that it can tell that it was told twice.
    let mut batch = Vec::new();
    let mut failed = false;
    loop {
        let wait = async {
            match lost.due() {
                _ if failed => tokio::time::sleep(AFTER_FAILURE).await,
                // What is noted meanwhile may be due earlier: of another replica.
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
                // A control plane of another version, or one that thinks them wrong: asking again helps nobody.
                Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                    tracing::warn!("the control plane takes no word of lost requests: {}", causes(&error));
                    batch.clear();
                }
                Err(error) => tracing::debug!("lost requests cannot be told yet: {}", causes(&error)),
            }
            failed = !batch.is_empty();
        }
        if last {
            if failed {
                tracing::warn!("the control plane was not told of requests that were lost: {batch:?}");
            }
            return;
        }
    }
}
