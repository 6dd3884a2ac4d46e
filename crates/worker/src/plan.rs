//! What to do next about one deployment: a pure function of what is wanted and what runs.
//!
//! [`plan`] is told nothing of what happened, only how things stand; calling it again after any crash gives
//! the step that is then right. It picks the one revision that serves: the wanted one once all of its
//! replicas are ready, until then the one that served before, which is started again if nothing of it is left. Replicas that are to end leave the route
//! first, and are told to end by a *later* step, after the gateways had [`Rules::route_settle`] to see it.
//!
//! What cannot be read back from SQL and from the backend, namely since when things are so, is
//! [`Memory`]. Forgetting it is always safe and merely costs those waits again. Remembering it while
//! another worker commits routes is not: what it says of the route holds under one lease only.
//!
//! **Invariant:** no I/O and no clock; `now` is a parameter. The targets never name a replica that was not
//! ready when it was observed.

mod events;
mod status;

use std::{collections::BTreeMap, time::Duration};

use api::{
    DeploymentStatus, ReplicaId, Revision, RevisionNumber, State, Timestamp,
    deployment::StatusError,
    event::NewEvent,
    replica::ReplicaState,
    route::{RouteReplica, RouteRevision, Targets},
};
use backend::Replica;
use store::DeploymentRecord;

use self::status::Trouble;

/// The whole of an endpoint's traffic: with one revision serving, any weight is.
const ALL_TRAFFIC: u32 = 100;
/// When to look again at replicas that were told to end, should nobody tell that they have.
const DRAIN_GLANCE: Duration = Duration::from_secs(1);
/// When to look again if a call has not yet made what it was asked for.
const STARTED_GLANCE: Duration = Duration::from_secs(1);
/// When to offer a revision again that the backend has rejected.
const REJECTED_GLANCE: Duration = Duration::from_mins(1);

/// The waits that a plan keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long after a replica left the route it may be told to end.
    pub route_settle: Duration,
    /// How long a revision may take to become ready before it counts as failed.
    pub start_deadline: Duration,
}

/// What SQL says.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// The deployment, with the status that was last written.
    pub record: &'w DeploymentRecord,
    /// The bodies of its revisions, at least of the wanted one.
    pub revisions: &'w [Revision],
    /// The backend has just rejected the wanted revision, with this reason.
    pub rejected: Option<&'w str>,
}

/// Since when things are so, as of the last step that was committed under this lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Replicas that run and are not in the committed route.
    unrouted: BTreeMap<ReplicaId, Timestamp>,
    /// The wanted revision, while it lacks ready replicas.
    starting: Option<(RevisionNumber, Timestamp)>,
}

impl Memory {
    /// What still holds when the lease has ended.
    #[must_use]
    pub fn beyond_the_lease(self) -> Option<Self> {
        self.starting.is_some().then(|| Self { unrouted: BTreeMap::new(), starting: self.starting })
    }
}

/// One call of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Have this many replicas of this revision.
    Ensure(RevisionNumber, u32),
    /// End this revision.
    Remove(RevisionNumber),
}

/// What to do, and what to write once it is done.
#[derive(Clone, Debug)]
pub struct Step {
    /// Calls of the backend. They are safe with regard to the route of the *last* committed step.
    pub acts: Vec<Act>,
    /// How the deployment stands.
    pub status: DeploymentStatus,
    /// Where its requests go.
    pub targets: Targets,
    /// What was decided.
    pub events: Vec<NewEvent>,
    /// When the gateways will have seen that replicas have left the route: commit this step, keep the
    /// lease for that long, and plan again.
    pub settle: Option<Duration>,
    /// When to look again although nobody has told of a change.
    pub look_again: Option<Duration>,
    /// Everything is as it was asked for: nothing is left to do until something changes.
    pub settled: bool,
    /// The deployment was deleted and nothing of it runs: it can be forgotten.
    pub gone: bool,
    /// What to remember once this step's route is committed.
    pub memory: Memory,
}

/// The next step of a deployment.
#[must_use]
pub fn plan(now: Timestamp, rules: Rules, wanted: Wanted<'_>, observed: &[Replica], before: &Memory) -> Step {
    let groups = Groups::of(wanted.record, observed);
    if groups.want == 0 {
        return groups.step(now, rules, wanted, before, None, &Trouble::None);
    }
    let serving = groups.serving(wanted.record);
    let trouble = status::trouble(now, rules, wanted, &groups, before);
    groups.step(now, rules, wanted, before, serving, &trouble)
}

/// The replicas, by revision, as one plan sees them.
#[derive(Debug)]
struct Groups<'o> {
    observed: &'o [Replica],
    by_revision: BTreeMap<RevisionNumber, Vec<&'o Replica>>,
    /// The wanted revision.
    newest: RevisionNumber,
    /// How many replicas of it are wanted: none of a deployment that is to go.
    want: u32,
}

impl<'o> Groups<'o> {
    fn of(record: &DeploymentRecord, observed: &'o [Replica]) -> Self {
        let mut by_revision: BTreeMap<RevisionNumber, Vec<&Replica>> = BTreeMap::new();
        for replica in observed.iter().filter(|replica| replica.state != ReplicaState::Stopping) {
            by_revision.entry(replica.revision).or_default().push(replica);
        }
        for group in by_revision.values_mut() {
            group.sort_by_key(|r| (r.state != ReplicaState::Ready, r.id.0.len(), &r.id.0));
        }
        let want = if record.deleting_since.is_some() { 0 } else { record.spec.replicas };
        Self { observed, by_revision, newest: record.revision, want }
    }

    /// Those that are not stopping, the ones that the backend would keep first.
    fn live(&self, revision: RevisionNumber) -> &[&'o Replica] {
        self.by_revision.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// How many replicas a revision shall have while `serving` serves, or is the one to serve again.
    fn share(&self, revision: RevisionNumber, serving: Option<RevisionNumber>) -> u32 {
        // The one that serves is scaled too: the wanted one may take long, or never get ready.
        if revision == self.newest || Some(revision) == serving { self.want } else { 0 }
    }

    /// The ready ones among the first `share` of a revision.
    fn ready(&self, revision: RevisionNumber, share: u32) -> impl Iterator<Item = &'o Replica> {
        let live = self.live(revision).iter().take(index(share)).copied();
        live.filter(|replica| replica.state == ReplicaState::Ready)
    }

    fn ready_count(&self, revision: RevisionNumber) -> u32 {
        count(self.ready(revision, u32::MAX).count())
    }

    /// The revision that requests go to: the wanted one once it is complete, else the one that served,
    /// else whichever has a ready replica, newer before older.
    fn serving(&self, record: &DeploymentRecord) -> Option<RevisionNumber> {
        if self.ready_count(self.newest) >= self.want {
            return Some(self.newest);
        }
        let has_ready = |revision: &RevisionNumber| self.ready_count(*revision) > 0;
        record
            .status
            .serving_revision
            .filter(has_ready)
            .or_else(|| Some(self.newest).filter(has_ready))
            .or_else(|| self.by_revision.keys().rev().copied().find(has_ready))
    }

    fn step(
        &self,
        now: Timestamp,
        rules: Rules,
        wanted: Wanted<'_>,
        before: &Memory,
        serving: Option<RevisionNumber>,
        trouble: &Trouble,
    ) -> Step {
        let record = wanted.record;
        let deleting = record.deleting_since.is_some();
        let status = status::status(wanted, self, serving, trouble);
        let routed: Vec<&Replica> =
            serving.into_iter().flat_map(|number| self.ready(number, self.share(number, serving))).collect();
        let targets = targets(wanted, &status, serving, &routed);
        let unrouted = self.unrouted(now, before, &routed);
        // One that has lost its replicas is not given up before another serves.
        let kept = serving.or(record.status.serving_revision);
        let Due { acts, settle, mut clocks } = self.due(now, rules, wanted, before, kept);

        let complete = |number| self.ready_count(number) >= self.want;
        let starting = (self.want > 0 && !complete(self.newest)).then(|| match before.starting {
            Some((number, since)) if number == self.newest => (number, since),
            _ => (self.newest, now),
        });
        if let (Some((_, since)), false) = (starting, trouble.is_hopeless()) {
            clocks.push(until(now, since.after(rules.start_deadline)));
        }
        if wanted.rejected.is_some() {
            clocks.push(REJECTED_GLANCE);
        }

        let exact = self.observed.len() == index(self.want)
            && self.observed.iter().all(|r| r.revision == self.newest && r.state == ReplicaState::Ready);
        let events = events::events(record, &status, self);
        Step {
            settled: !deleting && exact,
            gone: deleting && self.observed.is_empty(),
            settle,
            look_again: clocks.into_iter().min(),
            memory: Memory { unrouted, starting },
            acts,
            status,
            targets,
            events,
        }
    }

    /// Since when each running replica is out of the route, if `routed` is what is committed.
    fn unrouted(&self, now: Timestamp, before: &Memory, routed: &[&Replica]) -> BTreeMap<ReplicaId, Timestamp> {
        let out = self.observed.iter().filter(|replica| !routed.iter().any(|kept| kept.id == replica.id));
        out.map(|replica| {
            let since = before.unrouted.get(&replica.id).copied().unwrap_or(now);
            (replica.id.clone(), since)
        })
        .collect()
    }

    /// The calls that are due, and when further ones will be.
    fn due(
        &self,
        now: Timestamp,
        rules: Rules,
        wanted: Wanted<'_>,
        before: &Memory,
        serving: Option<RevisionNumber>,
    ) -> Due {
        // How long this replica may still be asked: by the committed route, and by a gateway that has not
        // seen it yet.
        let asked = |replica: &Replica| match before.unrouted.get(&replica.id) {
            _ if replica.state != ReplicaState::Ready => Duration::ZERO,
            Some(since) => until(now, since.after(rules.route_settle)),
            None => rules.route_settle,
        };
        let mut due = Due::default();
        let mut numbers: Vec<_> = self.observed.iter().map(|replica| replica.revision).collect();
        numbers.push(self.newest);
        numbers.extend(serving.filter(|_| self.want > 0));
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let live = self.live(number);
            let share = self.share(number, serving);
            if self.observed.iter().any(|r| r.revision == number && r.state == ReplicaState::Stopping) {
                due.clocks.push(DRAIN_GLANCE);
            }
            let wait = live.iter().skip(index(share)).map(|replica| asked(replica)).max().unwrap_or_default();
            if wait > Duration::ZERO {
                due.settle = Some(due.settle.map_or(wait, |other| other.min(wait)));
                continue;
            }
            if share == 0 {
                if self.observed.iter().any(|replica| replica.revision == number) {
                    due.acts.push(Act::Remove(number));
                    due.clocks.push(DRAIN_GLANCE);
                }
                continue;
            }
            let retries = || live.iter().filter(|r| r.state == ReplicaState::BackingOff).map(|r| r.retry_at);
            let retry = retries().any(|retry_at| retry_at.is_none_or(|retry_at| retry_at <= now));
            let known = wanted.revisions.iter().any(|revision| revision.number == number);
            if known && (live.len() != index(share) || retry) {
                due.acts.push(Act::Ensure(number, share));
                due.clocks.push(STARTED_GLANCE);
            }
            due.clocks.extend(retries().flatten().filter(|at| *at > now).map(|retry_at| until(now, retry_at)));
        }
        due
    }
}

/// The calls that are due, and when to look again.
#[derive(Debug, Default)]
struct Due {
    acts: Vec<Act>,
    settle: Option<Duration>,
    clocks: Vec<Duration>,
}

fn targets(
    wanted: Wanted<'_>,
    status: &DeploymentStatus,
    serving: Option<RevisionNumber>,
    routed: &[&Replica],
) -> Targets {
    let body = |number| wanted.revisions.iter().find(|revision| revision.number == number);
    let served = serving.and_then(body);
    let revisions = serving.filter(|_| !routed.is_empty()).map(|number| RouteRevision {
        number,
        model_version: served.map_or_else(String::new, |revision| revision.spec.model_version.clone()),
        weight: ALL_TRAFFIC,
        replicas: routed.iter().map(|r| RouteReplica { id: r.id.clone(), address: r.address.clone() }).collect(),
    });
    Targets {
        state: status.state,
        reason: revisions.is_none().then(|| reason(wanted.record, status)),
        answers_to: served.map_or(&wanted.record.spec.name, |revision| &revision.spec.name).clone(),
        revisions: revisions.into_iter().collect(),
    }
}

/// Why nothing serves.
fn reason(record: &DeploymentRecord, status: &DeploymentStatus) -> String {
    match (status.state, &status.error) {
        (State::Idle, _) => "it is scaled to 0 replicas; scale it up to serve".to_owned(),
        (State::Deleting, _) => "it is being deleted".to_owned(),
        (_, Some(StatusError { message, .. })) => message.clone(),
        (_, None) => format!("revision {} is starting, none of its replicas is ready yet", record.revision),
    }
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    then.since(now)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn index(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
