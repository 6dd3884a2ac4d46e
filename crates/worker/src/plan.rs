//! What to do next about one deployment: a pure function of what is wanted and what runs.
//!
//! [`plan`] is told nothing of what happened, only how things stand; calling it again after any crash gives
//! the step that is then right. Which revision gets which share of the requests is decided by [`crate::rollout`], and how
//! many replicas each has by [`crate::scaling`]; the plan makes it so. Replicas that are to end leave the route
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

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::{
    DeploymentStatus, ReplicaId, Revision, RevisionNumber, State, Timestamp,
    deployment::StatusError,
    event::NewEvent,
    replica::ReplicaState,
    route::{RouteReplica, RouteRevision, Targets},
    traffic::{Share, main_share},
};
use backend::{Replica, Restarts};
use store::DeploymentRecord;

use self::status::Trouble;

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

/// What SQL says, and what was decided on it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// The deployment, with the status that was last written.
    pub record: &'w DeploymentRecord,
    /// The bodies of its revisions, at least of the wanted one.
    pub revisions: &'w [Revision],
    /// How requests are shared out.
    pub traffic: &'w [Share],
    /// How many replicas of each revision are wanted; none of one that is not named.
    pub counts: &'w BTreeMap<RevisionNumber, u32>,
    /// Who starts a replica again that ended by itself.
    pub restarts: Restarts,
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
    /// Have so many replicas of a revision, without some of those that there are.
    Ensure {
        /// Which revision.
        revision: RevisionNumber,
        /// How many replicas.
        want: u32,
        /// Those to end. No committed route names them.
        retire: Vec<ReplicaId>,
    },
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
    let groups = Groups::of(wanted, observed);
    let trouble = match groups.want {
        0 => Trouble::None,
        _ => status::trouble(now, rules, wanted, &groups, before),
    };
    groups.step(now, rules, wanted, before, &trouble)
}

/// The replicas, by revision, as one plan sees them.
#[derive(Debug)]
struct Groups<'o> {
    observed: &'o [Replica],
    by_revision: BTreeMap<RevisionNumber, Vec<&'o Replica>>,
    traffic: &'o [Share],
    counts: &'o BTreeMap<RevisionNumber, u32>,
    /// The wanted revision.
    newest: RevisionNumber,
    /// How many replicas of it are wanted: none of a deployment that is to go.
    want: u32,
}

impl<'o> Groups<'o> {
    fn of(wanted: Wanted<'o>, observed: &'o [Replica]) -> Self {
        let mut by_revision: BTreeMap<RevisionNumber, Vec<&Replica>> = BTreeMap::new();
        for replica in observed.iter().filter(|replica| replica.state != ReplicaState::Stopping) {
            by_revision.entry(replica.revision).or_default().push(replica);
        }
        for group in by_revision.values_mut() {
            // The backend has the same order, and ends the last ones first.
            let backs_off = |r: &Replica| r.state == ReplicaState::BackingOff;
            group.sort_by_key(|r| (!r.is_ready(), backs_off(r), r.id.0.len(), &r.id.0));
        }
        let Wanted { traffic, counts, .. } = wanted;
        let newest = wanted.record.revision;
        Self { observed, by_revision, traffic, counts, newest, want: counts.get(&newest).copied().unwrap_or(0) }
    }

    /// Those that are not stopping, the ones that the backend would keep first.
    fn live(&self, revision: RevisionNumber) -> &[&'o Replica] {
        self.by_revision.get(&revision).map_or(&[], Vec::as_slice)
    }

    /// How many replicas a revision shall have.
    fn count(&self, revision: RevisionNumber) -> u32 {
        self.counts.get(&revision).copied().unwrap_or(0)
    }

    /// The ready ones among those that a revision shall have.
    fn ready(&self, revision: RevisionNumber) -> impl Iterator<Item = &'o Replica> {
        let live = self.live(revision).iter().take(index(self.count(revision))).copied();
        live.filter(|replica| replica.is_ready())
    }

    fn is_complete(&self, revision: RevisionNumber) -> bool {
        self.ready(revision).count() >= index(self.count(revision))
    }

    /// The revision that requests go to now, or most of them.
    fn serving(&self) -> Option<RevisionNumber> {
        main_share(self.traffic).map(|share| share.revision).filter(|revision| self.ready(*revision).next().is_some())
    }

    /// Whether everything runs that shall, nothing else does, and requests go to the wanted revision.
    fn is_settled(&self) -> bool {
        let all = self.counts.iter().all(|(revision, count)| self.live(*revision).len() == index(*count));
        let main = main_share(self.traffic).map(|share| share.revision);
        all && self.observed.iter().all(Replica::is_ready)
            && self.observed.len() == self.counts.values().map(|count| index(*count)).sum::<usize>()
            && (self.counts.is_empty() || main == Some(self.newest))
    }

    fn step(&self, now: Timestamp, rules: Rules, wanted: Wanted<'_>, before: &Memory, trouble: &Trouble) -> Step {
        let record = wanted.record;
        let deleting = record.deleting_since.is_some();
        let status = status::status(wanted, self, trouble);
        let targets = self.targets(wanted, &status);
        let unrouted = self.unrouted(now, before, &targets);
        let Due { acts, settle, mut clocks } = self.due(now, rules, wanted, before);

        let starting = (!self.is_complete(self.newest)).then(|| match before.starting {
            Some((number, since)) if number == self.newest => (number, since),
            _ => (self.newest, now),
        });
        if let (Some((_, since)), false) = (starting, trouble.is_hopeless()) {
            clocks.push(until(now, since.after(rules.start_deadline)));
        }
        if wanted.rejected.is_some() {
            clocks.push(REJECTED_GLANCE);
        }

        let events = events::events(record, &status, self);
        Step {
            settled: !deleting && self.is_settled(),
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

    /// Where requests go, to those that are ready.
    fn targets(&self, wanted: Wanted<'_>, status: &DeploymentStatus) -> Targets {
        let body = |number| wanted.revisions.iter().find(|revision| revision.number == number);
        let routed =
            |replica: &Replica| Some(RouteReplica { id: replica.id.clone(), address: replica.address.clone()? });
        let of_share = |share: &Share| RouteRevision {
            number: share.revision,
            model_version: body(share.revision).map_or_else(String::new, |it| it.spec.model_version.clone()),
            weight: share.weight,
            replicas: self.ready(share.revision).filter_map(routed).collect(),
        };
        let served = self.traffic.iter().map(of_share).filter(|revision| !revision.replicas.is_empty());
        let revisions: Vec<_> = served.collect();
        let mut names = revisions.iter().filter_map(|revision| body(revision.number)).map(|it| &it.spec.name);
        let first = names.next().unwrap_or(&wanted.record.spec.name);
        Targets {
            state: status.state,
            reason: revisions.is_empty().then(|| reason(wanted.record, status)),
            answers_to: first.clone().filter(|_| names.all(|name| name == first)),
            revisions,
        }
    }

    /// Since when each running replica is out of the route, if `targets` are what is committed.
    fn unrouted(&self, now: Timestamp, before: &Memory, targets: &Targets) -> BTreeMap<ReplicaId, Timestamp> {
        let routed: BTreeSet<_> =
            targets.revisions.iter().flat_map(|revision| revision.replicas.iter().map(|replica| &replica.id)).collect();
        let out = self.observed.iter().filter(|replica| !routed.contains(&replica.id));
        out.map(|replica| {
            let since = before.unrouted.get(&replica.id).copied().unwrap_or(now);
            (replica.id.clone(), since)
        })
        .collect()
    }

    /// The calls that are due, and when further ones will be.
    fn due(&self, now: Timestamp, rules: Rules, wanted: Wanted<'_>, before: &Memory) -> Due {
        // How long this replica may still be asked: by the committed route, and by a gateway that has not
        // seen it yet.
        let asked = |replica: &Replica| match before.unrouted.get(&replica.id) {
            _ if replica.state != ReplicaState::Ready => Duration::ZERO,
            Some(since) => until(now, since.after(rules.route_settle)),
            None => rules.route_settle,
        };
        let mut due = Due::default();
        let mut numbers: Vec<_> = self.observed.iter().map(|replica| replica.revision).collect();
        numbers.extend(self.counts.keys());
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let live = self.live(number);
            let share = self.count(number);
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
            let ours = wanted.restarts == Restarts::Caller;
            let retry = ours && retries().any(|retry_at| retry_at.is_none_or(|retry_at| retry_at <= now));
            let known = wanted.revisions.iter().find(|revision| revision.number == number);
            if let Some(revision) = known {
                let allowed = share.min(allowed(revision, live));
                if live.len() != index(allowed) || retry {
                    let retire = live.iter().skip(index(allowed)).map(|replica| replica.id.clone()).collect();
                    due.acts.push(Act::Ensure { revision: number, want: allowed, retire });
                    due.clocks.push(STARTED_GLANCE);
                }
            }
            if ours {
                due.clocks.extend(retries().flatten().filter(|at| *at > now).map(|retry_at| until(now, retry_at)));
            }
        }
        due
    }
}

/// How many replicas a revision may have. Of one whose files nobody knows, a single replica looks what is there, so that
/// all others serve the same. Replicas of older versions never say what they serve. They stay, also while they do not answer.
fn allowed(revision: &Revision, live: &[&Replica]) -> u32 {
    if revision.pin.is_some() || !revision.spec.needs_pin() {
        return u32::MAX;
    }
    let silent = live.iter().filter(|replica| replica.state == ReplicaState::Ready && replica.files.is_none()).count();
    let running = live.iter().filter(|replica| replica.state != ReplicaState::BackingOff).count();
    count(running.max(silent + 1))
}

/// The calls that are due, and when to look again.
#[derive(Debug, Default)]
struct Due {
    acts: Vec<Act>,
    settle: Option<Duration>,
    clocks: Vec<Duration>,
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
