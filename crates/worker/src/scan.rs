//! Finds changes without a wake-up: lost messages, replicas that ended while no worker ran, strays.
//!
//! One observation of all running replicas is compared with a few columns of every deployment. A settled deployment
//! costs one comparison. Deployments that differ or are not settled are processed by this worker itself, so a queue
//! that loses everything only costs latency.
//!
//! **Invariant:** a scan changes nothing by itself, except that it ends replicas of deployments that this database has
//! deleted, and strays that a person wants to end.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use api::{
    DeploymentId, RevisionNumber, State, Timestamp,
    replica::ReplicaState,
    stray::{Stray, StrayReason},
    traffic::main_share,
};
use async_trait::async_trait;
use backend::Replica;
use store::{Lineage, SettledRow, StoreError};
use tokio::sync::mpsc;

use crate::{
    jobs::{Job, jittered},
    metrics::Metrics,
    reconcile::{PassError, Reconciler},
    scaling,
    standing::{Known, Standing, standing},
    strays::stray,
};

/// How many deployments are read at once.
const PAGE: u32 = 2_000;

/// The running replicas of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// The number of replicas of each revision; `None` if not all of them are ready.
    ready: Option<BTreeMap<RevisionNumber, u32>>,
    /// The highest fence of a replica.
    fence: i64,
}

fn see<'r>(observed: impl Iterator<Item = &'r Replica>) -> HashMap<DeploymentId, Seen> {
    let mut seen: HashMap<DeploymentId, Seen> = HashMap::new();
    for replica in observed {
        let fence = replica.origin.as_ref().map_or(i64::MIN, |origin| origin.fence);
        let seen = seen.entry(replica.deployment).or_insert_with(|| Seen { ready: Some(BTreeMap::new()), fence });
        seen.fence = seen.fence.max(fence);
        match &mut seen.ready {
            Some(counts) if replica.state == ReplicaState::Ready => {
                *counts.entry(replica.revision).or_default() += 1;
            }
            _ => seen.ready = None,
        }
    }
    seen
}

/// Whether nothing has changed since a worker found the deployment settled.
fn is_at_rest(row: &SettledRow, seen: Option<&Seen>) -> bool {
    if !row.settled {
        return false;
    }
    match (row.state, seen) {
        (State::Idle, None) => true,
        (State::Active, Some(Seen { ready: Some(counts), .. })) => {
            main_share(&row.traffic).is_some_and(|share| share.revision == row.revision)
                && *counts == scaling::counts(row.revision, row.replicas, &row.traffic)
        }
        (State::Pending | State::Active | State::Degraded | State::Failed | State::Idle | State::Deleting, _) => false,
    }
}

/// The periodic scan.
pub(crate) struct Scan {
    pub(crate) reconciler: Reconciler,
    pub(crate) metrics: Metrics,
    pub(crate) findings: mpsc::Sender<DeploymentId>,
    /// Whether a scan has completed since the start.
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
        let scanned = loop {
            match scan(&self.reconciler, &self.metrics, &self.findings).await {
                // The difference was reported, and now the state is a different one.
                Err(PassError::Restored) if !self.reconciler.tasks.is_stopping() => {}
                scanned => break scanned,
            }
        };
        match scanned {
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

/// Scans once, and hands over the deployments that need a pass; returns the number of deployments.
async fn scan(
    reconciler: &Reconciler,
    metrics: &Metrics,
    findings: &mpsc::Sender<DeploymentId>,
) -> Result<usize, PassError> {
    // Observe the replicas first: then a deployment that is created during the scan only gets an unnecessary pass. In
    // the other order, its replicas would look like strays.
    let observed = reconciler.backend.observe_all().await?;
    let lineage = reconciler.store.lineage().await?;
    reconciler.knows(&lineage);
    let (ours, others): (Vec<_>, Vec<_>) = observed.into_iter().partition(|it| it.is_of(&lineage.current));
    let mut seen = see(ours.iter());

    let now: Timestamp = reconciler.now();
    let mut after = None;
    let mut rows = 0;
    loop {
        let page = reconciler.store.deployment_scan(after, PAGE).await?;
        rows += page.items.len();
        for row in &page.items {
            let seen = seen.remove(&row.id);
            if let Some(fence) = seen.as_ref().map(|seen| seen.fence).filter(|fence| *fence > row.fence.0) {
                let why = format!(
                    "a replica of {} carries fence {fence}, but the highest fence in the database is {}",
                    row.id, row.fence.0
                );
                return Err(reconciler.restored(row.id, &lineage.current, &why).await?);
            }
            if is_at_rest(row, seen.as_ref()) || reconciler.shelf.is_resting(row.id, now) {
                continue;
            }
            metrics.scan_found.inc();
            // Nobody receives it when the worker stops.
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
        let mut strays = unknown(reconciler, &lineage, ours, &seen).await?;
        strays.extend(of_others(reconciler, &lineage, others, findings).await?);
        metrics.strays.set(i64::try_from(strays.len()).unwrap_or(i64::MAX));
        reconciler.strays_seen(&strays).await?;
    }
    Ok(rows)
}

/// Replicas of this database for deployments that this worker does not see: the database has deleted them, it was restored, or
/// other workers run them.
async fn unknown(
    reconciler: &Reconciler,
    lineage: &Lineage,
    ours: Vec<Replica>,
    unknown: &HashMap<DeploymentId, Seen>,
) -> Result<Vec<Stray>, PassError> {
    let mut left = HashMap::new();
    for id in unknown.keys() {
        if let Some((record, _)) = reconciler.store.deployment_wanted(*id, &[]).await? {
            // It was created meanwhile, or belongs to other workers.
            if record.spec.placement() != reconciler.store.placement() {
                left.insert(*id, StrayReason::OtherPlacement);
            }
            continue;
        }
        let last = reconciler.store.deployment_last().await?;
        if *id > last {
            let why = format!("replicas of {id} run, but the newest deployment in the database is {last}");
            return Err(reconciler.restored(*id, &lineage.current, &why).await?);
        }
        reconciler.remove_gone(*id).await?;
        if !reconciler.store.deployment_is_gone(*id).await? {
            left.insert(*id, StrayReason::UnknownDeployment);
        }
    }
    let strays = ours.into_iter().filter_map(|replica| {
        let reason = *left.get(&replica.deployment)?;
        Some(stray(replica, reason))
    });
    Ok(strays.collect())
}

/// Replicas without the current epoch. Deployments that will take some of them over are handed over.
async fn of_others(
    reconciler: &Reconciler,
    lineage: &Lineage,
    others: Vec<Replica>,
    findings: &mpsc::Sender<DeploymentId>,
) -> Result<Vec<Stray>, PassError> {
    let mut by_deployment: BTreeMap<DeploymentId, Vec<Replica>> = BTreeMap::new();
    for replica in others {
        by_deployment.entry(replica.deployment).or_default().push(replica);
    }
    let mut strays = Vec::new();
    for (id, replicas) in by_deployment {
        let record = match reconciler.store.deployment_get(id).await {
            Ok(record) => Some(record),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if record.as_ref().is_some_and(|record| record.spec.placement() != reconciler.store.placement()) {
            strays.extend(replicas.into_iter().map(|replica| stray(replica, StrayReason::OtherPlacement)));
            continue;
        }
        let revisions = reconciler.store.revision_list(id).await?;
        let known =
            record.map(|record| Known { created_at: record.created_at, fence: i64::MAX, revisions: &revisions });
        let mut heirs = false;
        for replica in replicas {
            match standing(&replica, lineage, known) {
                Standing::Stray(reason) => strays.push(stray(replica, reason)),
                Standing::Heir(_) => heirs = true,
                Standing::Ours | Standing::Ahead(_) => {}
            }
        }
        if heirs && findings.send(id).await.is_err() {
            return Ok(strays);
        }
    }
    Ok(strays)
}

#[cfg(test)]
mod tests {
    use api::traffic::{Role, Share, all_to};
    use store::Fence;

    use super::*;

    fn row(state: State, replicas: u32, traffic: &[Share]) -> SettledRow {
        let (id, revision) = (DeploymentId(1), RevisionNumber(2));
        SettledRow { id, settled: true, state, revision, replicas, traffic: traffic.to_vec(), fence: Fence(9) }
    }

    fn active(replicas: u32) -> SettledRow {
        row(State::Active, replicas, &[all_to(RevisionNumber(2))])
    }

    fn seen(counts: &[(u32, u32)]) -> Option<Seen> {
        let ready = counts.iter().map(|(revision, count)| (RevisionNumber(*revision), *count)).collect();
        Some(Seen { ready: Some(ready), fence: 9 })
    }

    #[test]
    fn only_what_is_exactly_as_it_was_left_is_at_rest() {
        let rests = |row: &SettledRow, seen: Option<Seen>| is_at_rest(row, seen.as_ref());
        assert!(rests(&active(2), seen(&[(2, 2)])));
        assert!(!rests(&active(2), seen(&[(2, 1)])), "one is missing");
        assert!(!rests(&active(2), seen(&[(2, 3)])), "one is too many");
        assert!(!rests(&active(2), seen(&[(1, 1), (2, 1)])), "one is another revision's");
        assert!(!rests(&active(2), Some(Seen { ready: None, fence: 9 })), "one is not ready");
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
            files: None,
            notes: Vec::new(),
            origin: Some(api::Origin { epoch: api::Epoch("e".to_owned()), fence: 9, made_at: Timestamp(0) }),
        };
        let ready = |id, revision| replica(id, revision, ReplicaState::Ready);
        let all =
            [ready(1, 1), ready(1, 2), ready(1, 2), ready(2, 1), replica(2, 1, ReplicaState::Starting), ready(2, 1)];
        let found = see(all.iter());
        assert_eq!(found.get(&DeploymentId(1)), seen(&[(1, 1), (2, 2)]).as_ref());
        assert_eq!(found.get(&DeploymentId(2)), Some(&Seen { ready: None, fence: 9 }));
    }
}
