//! What a plan looks at: what is wanted, what runs, and since when.

use std::{collections::BTreeMap, time::Duration};

use api::{
    ReplicaId, Revision, RevisionNumber, Timestamp,
    replica::ReplicaState,
    traffic::{Share, main_share},
};
use backend::{Replica, Restarts};
use store::DeploymentRecord;

/// The delays that a plan respects.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The minimum time between the removal of a replica from the route and its stop.
    pub route_settle: Duration,
    /// The time after which a revision that is not ready counts as failed.
    pub start_deadline: Duration,
}

/// The state in SQL, and the decisions that were based on it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// The deployment, with its last written status.
    pub record: &'w DeploymentRecord,
    /// The contents of its revisions, at least of the wanted one.
    pub revisions: &'w [Revision],
    /// The distribution of requests.
    pub traffic: &'w [Share],
    /// The number of wanted replicas of each revision; 0 for a revision that is not listed.
    pub counts: &'w BTreeMap<RevisionNumber, u32>,
    /// Who restarts a replica that ended by itself.
    pub restarts: Restarts,
    /// The reason if the backend has just rejected the wanted revision.
    pub rejected: Option<&'w str>,
}

/// Since when states have lasted, as of the last step that was committed under this lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Running replicas that are not in the committed route.
    pub(super) unrouted: BTreeMap<ReplicaId, Timestamp>,
    /// The wanted revision, while too few of its replicas are ready.
    pub(super) starting: Option<(RevisionNumber, Timestamp)>,
}

impl Memory {
    /// The part that is still valid after the lease has ended.
    #[must_use]
    pub fn beyond_the_lease(self) -> Option<Self> {
        self.starting.is_some().then(|| Self { unrouted: BTreeMap::new(), starting: self.starting })
    }
}

/// The replicas by revision, as one plan sees them.
#[derive(Debug)]
pub(super) struct Groups<'o> {
    pub(super) observed: &'o [Replica],
    pub(super) by_revision: BTreeMap<RevisionNumber, Vec<&'o Replica>>,
    pub(super) traffic: &'o [Share],
    pub(super) counts: &'o BTreeMap<RevisionNumber, u32>,
    /// The wanted revision.
    pub(super) newest: RevisionNumber,
    /// How many replicas of it are wanted: 0 for a deployment that is being deleted.
    pub(super) want: u32,
}

impl<'o> Groups<'o> {
    pub(super) fn of(wanted: Wanted<'o>, observed: &'o [Replica]) -> Self {
        let mut by_revision: BTreeMap<RevisionNumber, Vec<&Replica>> = BTreeMap::new();
        for replica in observed.iter().filter(|replica| replica.state != ReplicaState::Stopping) {
            by_revision.entry(replica.revision).or_default().push(replica);
        }
        for group in by_revision.values_mut() {
            // The backend uses the same order, and ends the last ones first.
            let backs_off = |r: &Replica| r.state == ReplicaState::BackingOff;
            group.sort_by_key(|r| (!r.is_ready(), backs_off(r), r.id.0.len(), &r.id.0));
        }
        let Wanted { traffic, counts, .. } = wanted;
        let newest = wanted.record.revision;
        Self { observed, by_revision, traffic, counts, newest, want: counts.get(&newest).copied().unwrap_or(0) }
    }

    /// The replicas that are not stopping, in the order in which the backend keeps them.
    pub(super) fn live(&self, revision: RevisionNumber) -> &[&'o Replica] {
        self.by_revision.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// The wanted number of replicas of a revision.
    pub(super) fn count(&self, revision: RevisionNumber) -> u32 {
        self.counts.get(&revision).copied().unwrap_or(0)
    }

    /// The ready replicas, up to the wanted number of the revision.
    pub(super) fn ready(&self, revision: RevisionNumber) -> impl Iterator<Item = &'o Replica> {
        let live = self.live(revision).iter().take(index(self.count(revision))).copied();
        live.filter(|replica| replica.is_ready())
    }

    pub(super) fn is_complete(&self, revision: RevisionNumber) -> bool {
        self.ready(revision).count() >= index(self.count(revision))
    }

    /// The revision that gets the requests now, or most of them.
    pub(super) fn serving(&self) -> Option<RevisionNumber> {
        main_share(self.traffic).map(|share| share.revision).filter(|revision| self.ready(*revision).next().is_some())
    }

    /// Whether exactly the wanted replicas run, and requests go to the wanted revision.
    pub(super) fn is_settled(&self) -> bool {
        let all = self.counts.iter().all(|(revision, count)| self.live(*revision).len() == index(*count));
        let main = main_share(self.traffic).map(|share| share.revision);
        all && self.observed.iter().all(Replica::is_ready)
            && self.observed.len() == self.counts.values().map(|count| index(*count)).sum::<usize>()
            && (self.counts.is_empty() || main == Some(self.newest))
    }
}

pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

pub(super) fn index(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
