//! Decides the next step for one deployment: a pure function of the desired and the actual state.
//!
//! [`plan`] gets only the current state, and no history; after any crash, calling it again gives the right step.
//! [`crate::rollout`] decides the share of requests of each revision, and [`crate::scaling`] the number of replicas;
//! the plan implements both. Replicas that must end are first removed from the route. A *later* step tells them to
//! stop, after the gateways had [`Rules::route_settle`] to notice.
//!
//! [`Memory`] holds what SQL and the backend do not store: since when a state has lasted. It is always safe to forget
//! it; the waits then start again. It is not safe to keep it while another worker commits routes: its statements about
//! the route are valid under one lease only.
//!
//! **Invariant:** no I/O and no clock; `now` is a parameter. The targets contain only replicas that were observed as
//! ready.

mod events;
mod groups;
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
    traffic::Share,
};
use backend::{Replica, Restarts};
use store::DeploymentRecord;

pub use groups::{Memory, Rules, Wanted};

use self::{
    groups::{Groups, count, index},
    status::Trouble,
};

/// When to check replicas that were told to stop again, if no event arrives before.
const DRAIN_GLANCE: Duration = Duration::from_secs(1);
/// When to check again whether a call had its effect.
const STARTED_GLANCE: Duration = Duration::from_secs(1);
/// When to retry a revision that the backend has rejected.
const REJECTED_GLANCE: Duration = Duration::from_mins(1);

/// One call to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Run this many replicas of a revision, and end the given ones.
    Ensure {
        /// Which revision.
        revision: RevisionNumber,
        /// The number of replicas.
        want: u32,
        /// The replicas to end. No committed route contains them.
        retire: Vec<ReplicaId>,
    },
    /// End this revision.
    Remove(RevisionNumber),
}

/// The step to take, and the data to write after it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Calls to the backend. They are safe with respect to the route of the *last* committed step.
    pub acts: Vec<Act>,
    /// The status of the deployment.
    pub status: DeploymentStatus,
    /// The targets of its requests.
    pub targets: Targets,
    /// The decisions, as events.
    pub events: Vec<NewEvent>,
    /// When the gateways will have noticed that replicas were removed from the route: commit this step, keep the lease
    /// until then, and plan again.
    pub settle: Option<Duration>,
    /// When to check again if no event arrives before.
    pub look_again: Option<Duration>,
    /// The deployment is settled: nothing to do until something changes.
    pub settled: bool,
    /// The deployment was deleted and none of its replicas run: it can be removed.
    pub gone: bool,
    /// The memory after the route of this step is committed.
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

impl Groups<'_> {
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

    /// The targets: the ready replicas.
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

    /// Since when each running replica is out of the route, if `targets` are committed.
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

    /// The calls that are due, and when the next ones will be.
    fn due(&self, now: Timestamp, rules: Rules, wanted: Wanted<'_>, before: &Memory) -> Due {
        // How long this replica may still get requests: by the committed route, and from a gateway that has not noticed
        // the change yet.
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

/// The maximum number of replicas of a revision. If the files of the revision are not known yet, a single replica finds
/// them first, so that all others serve the same. Replicas of older versions never report their files. They stay, even
/// while they do not answer.
fn allowed(revision: &Revision, live: &[&Replica]) -> u32 {
    if revision.pin.is_some() || !revision.spec.needs_pin() {
        return u32::MAX;
    }
    let silent = live.iter().filter(|replica| replica.state == ReplicaState::Ready && replica.files.is_none()).count();
    let running = live.iter().filter(|replica| replica.state != ReplicaState::BackingOff).count();
    count(running.max(silent + 1))
}

/// The calls that are due, and when to check again.
#[derive(Debug, Default)]
struct Due {
    acts: Vec<Act>,
    settle: Option<Duration>,
    clocks: Vec<Duration>,
}

/// Why nothing serves.
fn reason(record: &DeploymentRecord, status: &DeploymentStatus) -> String {
    match (status.state, &status.error) {
        (State::Idle, _) => "it is scaled to 0 replicas; scale it up".to_owned(),
        (State::Deleting, _) => "it is being deleted".to_owned(),
        (_, Some(StatusError { message, .. })) => message.clone(),
        (_, None) => format!("revision {} is starting; none of its replicas is ready yet", record.revision),
    }
}

fn until(now: Timestamp, then: Timestamp) -> Duration {
    then.since(now)
}
