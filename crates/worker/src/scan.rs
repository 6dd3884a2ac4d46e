//! Finds what no wake-up told of: lost messages, replicas that ended while no worker lived, strays.
//!
//! One look at everything that runs is laid beside a few columns of every deployment. A deployment at rest
//! costs a comparison; only those that differ, or are not at rest, are worked on: by this very worker, so
//! that a queue which loses everything costs latency and nothing else.
//!
//! **Invariant:** a scan changes nothing by itself, except that it ends replicas of deployments that do not
//! exist.

use std::collections::HashMap;

use api::{DeploymentId, RevisionNumber, State, Timestamp, replica::ReplicaState};
use backend::Replica;
use store::SettledRow;
use tokio::sync::mpsc;

use crate::{
    metrics::Metrics,
    reconcile::{PassError, Reconciler},
};

/// How many deployments are read at once.
const PAGE: u32 = 2_000;

/// What runs for one deployment, in a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    count: u32,
    /// The one revision that all of it is, and all of it is ready; `None` if not.
    whole: Option<RevisionNumber>,
}

fn see(observed: &[Replica]) -> HashMap<DeploymentId, Seen> {
    let mut seen: HashMap<DeploymentId, Seen> = HashMap::new();
    for replica in observed {
        let ready = (replica.state == ReplicaState::Ready).then_some(replica.revision);
        seen.entry(replica.deployment)
            .and_modify(|seen| {
                seen.count += 1;
                seen.whole = seen.whole.filter(|whole| Some(*whole) == ready);
            })
            .or_insert(Seen { count: 1, whole: ready });
    }
    seen
}

/// Whether nothing has changed since a worker found nothing left to do.
fn is_at_rest(row: &SettledRow, seen: Option<Seen>) -> bool {
    if !row.settled {
        return false;
    }
    match (row.state, seen) {
        (State::Idle, None) => true,
        (State::Active, Some(seen)) => seen.count == row.replicas && seen.whole == row.serving_revision,
        (State::Pending | State::Active | State::Degraded | State::Failed | State::Idle | State::Deleting, _) => false,
    }
}

/// Scans once, and hands over what needs a look; gives the number of deployments.
pub(crate) async fn scan(
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
            let at_rest = is_at_rest(row, seen.remove(&row.id));
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
    use super::*;

    fn row(state: State, replicas: u32) -> SettledRow {
        let serving_revision = (state == State::Active).then_some(RevisionNumber(2));
        SettledRow { id: DeploymentId(1), settled: true, state, serving_revision, replicas }
    }

    fn seen(count: u32, whole: Option<u32>) -> Option<Seen> {
        Some(Seen { count, whole: whole.map(RevisionNumber) })
    }

    #[test]
    fn only_what_is_exactly_as_it_was_left_is_at_rest() {
        assert!(is_at_rest(&row(State::Active, 2), seen(2, Some(2))));
        assert!(!is_at_rest(&row(State::Active, 2), seen(1, Some(2))), "one is missing");
        assert!(!is_at_rest(&row(State::Active, 2), seen(3, Some(2))), "one is too many");
        assert!(!is_at_rest(&row(State::Active, 2), seen(2, None)), "one is not ready or another revision's");
        assert!(!is_at_rest(&row(State::Active, 2), seen(2, Some(1))), "all are another revision's");
        assert!(!is_at_rest(&row(State::Active, 2), None), "all are gone");
        assert!(is_at_rest(&row(State::Idle, 0), None));
        assert!(!is_at_rest(&row(State::Idle, 0), seen(1, Some(2))), "something runs that should not");
        assert!(!is_at_rest(&SettledRow { settled: false, ..row(State::Active, 2) }, seen(2, Some(2))));
    }
}
