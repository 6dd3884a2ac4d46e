//! Finds what no wake-up told of: lost messages, replicas that ended while no worker lived, strays.
//!
//! One look at everything that runs is laid beside a few columns of every deployment. A deployment at rest
//! costs a comparison; only those that differ, or are not at rest, are worked on: by this very worker, so
//! that a queue which loses everything costs latency and nothing else.
//!
//! **Invariant:** a scan changes nothing by itself, except that it ends replicas of deployments that do not
//! exist.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use api::{DeploymentId, RevisionNumber, State, Timestamp, replica::ReplicaState, traffic::main_share};
use async_trait::async_trait;
use backend::Replica;
use store::SettledRow;
use tokio::sync::mpsc;

use crate::{
    jobs::{Job, jittered},
    metrics::Metrics,
    reconcile::{PassError, Reconciler},
    scaling,
};

/// How many deployments are read at once.
const PAGE: u32 = 2_000;

/// What runs for one deployment: how many replicas of each revision, or that not all of it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Ready(BTreeMap<RevisionNumber, u32>),
    Unready,
}

fn see(observed: &[Replica]) -> HashMap<DeploymentId, Seen> {
    let mut seen: HashMap<DeploymentId, Seen> = HashMap::new();
    for replica in observed {
        let its = seen.entry(replica.deployment).or_insert_with(|| Seen::Ready(BTreeMap::new()));
        match its {
            Seen::Ready(counts) if replica.state == ReplicaState::Ready => {
                *counts.entry(replica.revision).or_default() += 1;
            }
            Seen::Ready(_) | Seen::Unready => *its = Seen::Unready,
        }
    }
    seen
}

/// Whether nothing has changed since a worker found nothing left to do.
fn is_at_rest(row: &SettledRow, seen: Option<&Seen>) -> bool {
    if !row.settled {
        return false;
    }
    match (row.state, seen) {
        (State::Idle, None) => true,
        (State::Active, Some(Seen::Ready(counts))) => {
            main_share(&row.traffic).is_some_and(|share| share.revision == row.revision)
                && *counts == scaling::counts(row.revision, row.replicas, &row.traffic)
        }
        (State::Pending | State::Active | State::Degraded | State::Failed | State::Idle | State::Deleting, _) => false,
    }
}

/// Scans again and again.
pub(crate) struct Scan {
    pub(crate) reconciler: Reconciler,
    pub(crate) metrics: Metrics,
    pub(crate) findings: mpsc::Sender<DeploymentId>,
    /// Whether a scan was completed since the start.
    pub(crate) scanned: Arc<AtomicBool>,
    pub(crate) interval_ms: u64,
}

#[async_trait]
impl Job for Scan {
    fn pause(&self) -> Duration {
        jittered(self.interval_ms)
    }

    async fn turn(&self) {
        let start = Instant::now();
        match scan(&self.reconciler, &self.metrics, &self.findings).await {
            Ok(rows) => {
                self.metrics.scan_took(start.elapsed());
                self.metrics.scanned.set(i64::try_from(rows).unwrap_or(i64::MAX));
                self.scanned.store(true, Ordering::Release);
            }
            Err(error) => {
                self.metrics.scan_errors.inc();
                tracing::warn!(error = &error as &dyn std::error::Error, "a scan failed");
            }
        }
    }
}

/// Scans once, and hands over what needs a look; gives the number of deployments.
async fn scan(
    reconciler: &Reconciler,
    metrics: &Metrics,
    findings: &mpsc::Sender<DeploymentId>,
) -> Result<usize, PassError> {
    // What runs is looked at first: a deployment that is made meanwhile is then merely looked at in vain,
    // while the other way round its replicas would seem to be strays.
    let observed = reconciler.backend.observe_all().await?;
    let mut seen = see(&observed);
    drop(observed);

    let now: Timestamp = reconciler.now();
    let mut after = None;
    let mut rows = 0;
    loop {
        let page = reconciler.store.deployment_scan(after, PAGE).await?;
        rows += page.items.len();
        for row in &page.items {
            let at_rest = is_at_rest(row, seen.remove(&row.id).as_ref());
            if at_rest || reconciler.shelf.is_resting(row.id, now) {
                continue;
            }
            metrics.scan_found.inc();
            // Nobody takes it when the worker ends.
            if findings.send(row.id).await.is_err() {
                return Ok(rows);
            }
        }
        after = page.next;
        if after.is_none() || reconciler.tasks.is_stopping() {
            break;
        }
    }
    // A scan that was cut short has not seen every deployment.
    if after.is_none() {
        for id in seen.into_keys() {
            if reconciler.store.deployment_wanted(id, &[]).await?.is_none() {
                metrics.strays_removed.inc();
                reconciler.remove_stray(id).await?;
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use api::traffic::{Role, Share, all_to};

    use super::*;

    fn row(state: State, replicas: u32, traffic: &[Share]) -> SettledRow {
        let (id, revision) = (DeploymentId(1), RevisionNumber(2));
        SettledRow { id, settled: true, state, revision, replicas, traffic: traffic.to_vec() }
    }

    fn active(replicas: u32) -> SettledRow {
        row(State::Active, replicas, &[all_to(RevisionNumber(2))])
    }

    fn seen(counts: &[(u32, u32)]) -> Option<Seen> {
        Some(Seen::Ready(counts.iter().map(|(revision, count)| (RevisionNumber(*revision), *count)).collect()))
    }

    #[test]
    fn only_what_is_exactly_as_it_was_left_is_at_rest() {
        let rests = |row: &SettledRow, seen: Option<Seen>| is_at_rest(row, seen.as_ref());
        assert!(rests(&active(2), seen(&[(2, 2)])));
        assert!(!rests(&active(2), seen(&[(2, 1)])), "one is missing");
        assert!(!rests(&active(2), seen(&[(2, 3)])), "one is too many");
        assert!(!rests(&active(2), seen(&[(1, 1), (2, 1)])), "one is another revision's");
        assert!(!rests(&active(2), Some(Seen::Unready)), "one is not ready");
        assert!(!rests(&active(2), seen(&[(1, 2)])), "all are another revision's");
        assert!(!rests(&active(2), None), "all are gone");
        let pinned = Share { revision: RevisionNumber(1), weight: 0, role: Role::Pinned };
        let pins = row(State::Active, 2, &[all_to(RevisionNumber(2)), pinned]);
        assert!(rests(&pins, seen(&[(1, 1), (2, 2)])));
        assert!(!rests(&pins, seen(&[(2, 2)])), "the pinned one is missing");
        assert!(
            !rests(&row(State::Active, 2, &[all_to(RevisionNumber(1))]), seen(&[(1, 2), (2, 2)])),
            "an old one serves"
        );
        assert!(rests(&row(State::Idle, 0, &[]), None));
        assert!(!rests(&row(State::Idle, 0, &[]), seen(&[(2, 1)])), "something runs that should not");
        assert!(!rests(&SettledRow { settled: false, ..active(2) }, seen(&[(2, 2)])));
    }

    #[test]
    fn what_runs_is_counted_by_revision() {
        let replica = |id: i64, revision: u32, state: ReplicaState| Replica {
            id: api::ReplicaId(format!("md-{id}-r{revision}")),
            deployment: DeploymentId(id),
            revision: RevisionNumber(revision),
            state,
            address: None,
            started_at: None,
            restarts: 0,
            failure: None,
            retry_at: None,
            artifact: None,
            notes: Vec::new(),
        };
        let ready = |id, revision| replica(id, revision, ReplicaState::Ready);
        let all =
            [ready(1, 1), ready(1, 2), ready(1, 2), ready(2, 1), replica(2, 1, ReplicaState::Starting), ready(2, 1)];
        let found = see(&all);
        assert_eq!(found.get(&DeploymentId(1)), seen(&[(1, 1), (2, 2)]).as_ref());
        assert_eq!(found.get(&DeploymentId(2)), Some(&Seen::Unready));
    }
}
