//! The status of a deployment, with texts for the user.

use std::time::Duration;

use api::{
    DeploymentStatus, RevisionNumber, State, Timestamp,
    deployment::{ReplicaView, StatusError},
    registry::ModelContent,
    replica::ReplicaState,
    traffic::main_share,
};
use backend::Replica;

use super::groups::{Groups, Memory, Rules, Wanted, count};

/// The number of restarts without becoming ready that counts as a crash loop.
pub(super) const LOOP: u32 = 3;
/// Maximum number of notes in a status.
const MAX_NOTES: usize = 16;
/// The code for a revision that took too long to start.
const START_TIMEOUT: &str = "start_timeout";
/// The code of the backend for a process that ended without a more specific reason.
const CRASH_LOOP: &str = "crash_loop";
/// The same code before it counts as a crash loop.
const CRASHED: &str = "crashed";

/// The problem of the wanted revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No known problem.
    None,
    /// A problem that a retry may solve.
    Passing(StatusError),
    /// A problem that retries did not or cannot solve.
    Hopeless(StatusError),
}

impl Trouble {
    pub(super) fn is_hopeless(&self) -> bool {
        matches!(self, Self::Hopeless(_))
    }

    fn error(&self) -> Option<&StatusError> {
        match self {
            Self::None => None,
            Self::Passing(error) | Self::Hopeless(error) => Some(error),
        }
    }
}

/// The problem of the wanted revision, while too few of its replicas are ready.
pub(super) fn trouble(
    now: Timestamp,
    rules: Rules,
    wanted: Wanted<'_>,
    groups: &Groups<'_>,
    before: &Memory,
) -> Trouble {
    let newest = groups.newest;
    if groups.is_complete(newest) {
        return Trouble::None;
    }
    if let Some(reason) = wanted.rejected {
        return Trouble::Hopeless(StatusError {
            code: "backend_rejected".to_owned(),
            message: reason.to_owned(),
            revision: newest,
            log: Vec::new(),
        });
    }
    let failing = worst(groups.live(newest));
    if let Some((replica, true)) = failing.map(|replica| (replica, is_lost(replica))) {
        return failure(replica).map_or(Trouble::None, Trouble::Hopeless);
    }
    let waited = before.starting.filter(|(number, _)| *number == newest).map(|(_, since)| now.since(since));
    if waited.is_some_and(|waited| waited >= rules.start_deadline) {
        return Trouble::Hopeless(timeout(rules.start_deadline, newest, failing));
    }
    // A new worker does not know since when; the written status remains until the problem is solved.
    let written = wanted.record.status.error.as_ref();
    if let Some(error) = written.filter(|error| error.code == START_TIMEOUT && error.revision == newest) {
        return Trouble::Hopeless(error.clone());
    }
    failing.and_then(failure).map_or(Trouble::None, Trouble::Passing)
}

/// The status of a deployment.
pub(super) fn status(wanted: Wanted<'_>, groups: &Groups<'_>, trouble: &Trouble) -> DeploymentStatus {
    let newest = groups.newest;
    let serving = groups.serving();
    let incomplete = groups.traffic.iter().map(|share| share.revision).find(|number| !groups.is_complete(*number));
    let failing_share = || incomplete.and_then(|number| worst(groups.live(number))).and_then(failure);
    let (state, error) = match serving {
        _ if wanted.record.deleting_since.is_some() => (State::Deleting, None),
        _ if groups.want == 0 => (State::Idle, None),
        None if trouble.is_hopeless() => (State::Failed, trouble.error().cloned()),
        None => (State::Pending, trouble.error().cloned()),
        Some(number) if number == newest => {
            let starts = wanted.record.status.state == State::Pending && !trouble.is_hopeless();
            let state = match incomplete {
                None => State::Active,
                // Its replicas become ready one by one: no problem.
                Some(_) if starts => State::Pending,
                Some(_) => State::Degraded,
            };
            (state, trouble.error().cloned().or_else(failing_share))
        }
        Some(_) => {
            let state = if trouble.is_hopeless() || incomplete.is_some() { State::Degraded } else { State::Active };
            (state, trouble.error().cloned().or_else(failing_share))
        }
    };
    DeploymentStatus {
        state,
        ready_replicas: serving.map_or(0, |number| count(groups.ready(number).count())),
        serving_revision: main_share(groups.traffic).map(|share| share.revision),
        traffic: groups.traffic.to_vec(),
        artifact: artifact(groups, serving.unwrap_or(newest)),
        digest: digest(wanted, serving.unwrap_or(newest)),
        error,
        notes: notes(groups, serving, trouble),
        replica_status: groups.observed.iter().map(view).collect(),
    }
}

/// The replica with the most significant failure: first one that retries cannot help, then the one that ended most
/// often.
fn worst<'r>(live: &[&'r Replica]) -> Option<&'r Replica> {
    let failing = live.iter().copied().filter(|r| r.state != ReplicaState::Ready && r.failure.is_some());
    failing.max_by_key(|replica| (replica.failure.as_ref().is_some_and(|f| f.permanent), replica.restarts))
}

fn is_lost(replica: &Replica) -> bool {
    replica.failure.as_ref().is_some_and(|failure| failure.permanent) || replica.restarts >= LOOP
}

/// What happened to a replica, and how often if it happens repeatedly.
fn failure(replica: &Replica) -> Option<StatusError> {
    let failure = replica.failure.as_ref()?;
    let mut error = failure.error.clone();
    error.revision = replica.revision;
    if replica.restarts < LOOP && error.code == CRASH_LOOP {
        CRASHED.clone_into(&mut error.code);
    }
    if !failure.permanent && replica.restarts >= LOOP {
        error.message =
            format!("{} was started {} times and ended each time: {}", replica.id, replica.restarts + 1, error.message);
    }
    Some(error)
}

fn timeout(deadline: Duration, revision: RevisionNumber, failing: Option<&Replica>) -> StatusError {
    let last = failing.and_then(failure);
    let why = last.as_ref().map_or_else(
        || "it starts but does not become ready; see its log".to_owned(),
        |error| format!("last error: {}", error.message),
    );
    StatusError {
        code: START_TIMEOUT.to_owned(),
        message: format!("revision {revision} was not ready within {} s: {why}", deadline.as_secs()),
        revision,
        log: last.map(|error| error.log).unwrap_or_default(),
    }
}

fn artifact(groups: &Groups<'_>, revision: RevisionNumber) -> Option<String> {
    groups.live(revision).iter().find_map(|replica| replica.artifact.clone())
}

/// The digest that a revision is pinned to, or that its specification requires.
fn digest(wanted: Wanted<'_>, number: RevisionNumber) -> Option<String> {
    let revision = wanted.revisions.iter().find(|revision| revision.number == number)?;
    match (&revision.pin, &revision.spec.content) {
        (Some(pin), _) => Some(pin.files.digest.clone()),
        (None, ModelContent::Artifact { digest, .. }) => digest.clone(),
        (None, ModelContent::Image { .. }) => None,
    }
}

fn notes(groups: &Groups<'_>, serving: Option<RevisionNumber>, trouble: &Trouble) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(old) = serving.filter(|number| *number != groups.newest) {
        notes.push(match trouble {
            Trouble::None | Trouble::Passing(_) => {
                format!("revision {} is starting; revision {old} serves until it is ready", groups.newest)
            }
            Trouble::Hopeless(_) => format!("revision {old} serves because revision {} failed", groups.newest),
        });
    }
    for note in groups.observed.iter().flat_map(|replica| &replica.notes) {
        if notes.len() < MAX_NOTES && !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    notes
}

fn view(replica: &Replica) -> ReplicaView {
    ReplicaView {
        id: replica.id.clone(),
        revision: replica.revision,
        state: replica.state,
        restarts: replica.restarts,
        started_at: replica.started_at,
        reason: replica.failure.as_ref().map(|failure| failure.error.message.clone()),
    }
}
