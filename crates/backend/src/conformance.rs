//! The conformance suite for backends: cases that each implementation runs.
//!
//! A case waits for an expected state and panics if it does not come; nothing here sleeps for a fixed time. The cases
//! use separate deployments, so all of them can share one machine.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    DeploymentId, Epoch, Fence, ReplicaId, Revision, RevisionNumber, Timestamp,
    deployment::{MachineType, Resources},
    registry::ModelContent,
    replica::ReplicaState,
    revision::RevisionSpec,
};
use async_trait::async_trait;
use futures::StreamExt;

use crate::{Backend, BackendError, Replica};

/// How long a case waits for an expected state.
const PATIENCE: Duration = Duration::from_secs(30);
/// The interval between two checks.
const GLANCE: Duration = Duration::from_millis(10);

/// The machine, real or simulated, that a backend uses.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens the backend as a new process would: replicas of an earlier one still run.
    async fn open(&self) -> Arc<dyn Backend>;

    /// A revision whose replicas become ready.
    fn revision(&self, deployment: DeploymentId, number: RevisionNumber) -> Revision;

    /// A revision whose replicas end by themselves before they are ready, with a short back-off.
    fn broken(&self, deployment: DeploymentId, number: RevisionNumber) -> Revision;
}

/// A plain revision that serves the files at `uri`.
#[must_use]
pub fn revision(deployment: DeploymentId, number: RevisionNumber, uri: &str) -> Revision {
    let content = ModelContent::Artifact { uris: vec![uri.to_owned()], digest: None };
    let spec = RevisionSpec {
        name: None,
        machine: MachineType::Cpu,
        model_version: format!("v{number}"),
        content,
        request_res: Resources::default(),
        limit_res: Resources::default(),
        env: BTreeMap::new(),
        env_from_file: BTreeMap::new(),
        request_timeout_ms: 100,
        python: None,
    };
    Revision { deployment, number, spec, created_at: Timestamp(0), pin: None }
}

/// The epoch of most cases.
const HERE: &str = "6f1c";

/// A fence of an epoch without former epochs.
#[must_use]
pub fn fence_of(epoch: &str, number: i64) -> Fence {
    Fence { epoch: Epoch(epoch.to_owned()), former: Vec::new(), number }
}

/// A fence of the epoch of the cases.
#[must_use]
pub fn fence(number: i64) -> Fence {
    fence_of(HERE, number)
}

/// Runs every case, one after the other, and leaves nothing running.
///
/// # Panics
/// If a case fails.
pub async fn run(place: &dyn Place) {
    changes_tell_when_a_replica_becomes_ready(place, DeploymentId(101)).await;
    ensuring_again_starts_nothing_more(place, DeploymentId(102)).await;
    a_revision_grows_and_shrinks(place, DeploymentId(103)).await;
    those_that_retire_end_and_others_take_their_place(place, DeploymentId(111)).await;
    revisions_run_side_by_side_and_are_removed_alone(place, DeploymentId(104)).await;
    an_older_fence_is_refused(place, DeploymentId(105)).await;
    removing_what_is_not_there_is_harmless(place, DeploymentId(106)).await;
    a_reopened_backend_finds_what_runs_and_does_not_double_it(place, DeploymentId(107)).await;
    a_replica_that_ends_by_itself_says_why_and_is_started_again(place, DeploymentId(108)).await;
    logs_are_there_for_known_replicas_only(place, DeploymentId(109)).await;
    another_epoch_s_replicas_run_on_beside_one_s_own(place, DeploymentId(111)).await;
    what_was_taken_over_is_one_s_own(place, DeploymentId(112)).await;
    an_epoch_that_another_continues_is_refused(place, DeploymentId(113)).await;
    a_stray_is_ended_by_its_name_only(place, DeploymentId(114)).await;
    what_ended_is_revived_without_a_fence(place, DeploymentId(115)).await;
    shutdown_leaves_nothing_but_other_epochs_replicas(place, DeploymentId(110)).await;
}

async fn changes_tell_when_a_replica_becomes_ready(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let mut changes = backend.changes();
    ensure(&*backend, &place.revision(id, RevisionNumber(1)), 1, 1).await;
    let told = async {
        loop {
            let changed = changes.next().await.expect("changes() ended while the backend lives");
            let replicas = observe(&*backend, id).await;
            if changed == id && replicas.iter().all(|r| r.state == ReplicaState::Ready) && !replicas.is_empty() {
                break;
            }
        }
    };
    within("a change that tells that the replica is ready", told).await;
    let replicas = observe(&*backend, id).await;
    assert_eq!((replicas[0].deployment, replicas[0].revision, replicas[0].restarts), (id, RevisionNumber(1), 0));
    assert_eq!(replicas[0].failure, None, "a ready replica has no failure");
    assert!(replicas[0].started_at.is_some(), "a running replica says when it started");
    gone(&*backend, id, None, 1).await;
}

async fn ensuring_again_starts_nothing_more(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let wanted = place.revision(id, RevisionNumber(1));
    for _ in 0..3 {
        ensure(&*backend, &wanted, 2, 1).await;
        assert_eq!(observe(&*backend, id).await.len(), 2, "ensure is not idempotent while replicas start");
    }
    let first = ready(&*backend, id, 2).await;
    ensure(&*backend, &wanted, 2, 1).await;
    ensure(&*backend, &wanted, 2, 2).await;
    let second = ready(&*backend, id, 2).await;
    assert_eq!(starts(&first), starts(&second), "ensure has replaced replicas that were ready");
    gone(&*backend, id, None, 2).await;
}

async fn a_revision_grows_and_shrinks(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let wanted = place.revision(id, RevisionNumber(1));
    ensure(&*backend, &wanted, 1, 1).await;
    let one = ready(&*backend, id, 1).await;
    ensure(&*backend, &wanted, 3, 1).await;
    let three = ready(&*backend, id, 3).await;
    assert!(starts(&three).contains(&starts(&one)[0]), "growing has replaced the replica that ran");
    let mut names: Vec<_> = three.iter().map(|r| r.id.clone()).collect();
    let sorted = {
        let mut sorted = names.clone();
        sorted.sort();
        sorted
    };
    assert_eq!(names, sorted, "observe is in the order of names");
    names.dedup();
    assert_eq!(names.len(), 3, "each replica has a name of its own");

    ensure(&*backend, &wanted, 1, 1).await;
    let told_to_end = observe(&*backend, id).await;
    assert!(live(&told_to_end).count() == 1, "surplus replicas are stopping at once: {told_to_end:?}");
    eventually("the surplus replicas to end", || async { observe(&*backend, id).await.len() == 1 }).await;
    let left = observe(&*backend, id).await;
    assert!(starts(&three).contains(&starts(&left)[0]), "shrinking has replaced the replica that stays");

    ensure(&*backend, &wanted, 0, 1).await;
    eventually("every replica to end", || async { observe(&*backend, id).await.is_empty() }).await;
}

async fn those_that_retire_end_and_others_take_their_place(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let wanted = place.revision(id, RevisionNumber(1));
    ensure(&*backend, &wanted, 3, 1).await;
    let three = ready(&*backend, id, 3).await;
    let first = three[0].id.clone();
    let ensure_without_first = async |want: u32| {
        let retire = std::slice::from_ref(&first);
        backend.ensure(&wanted, want, retire, &fence(1)).await.expect("ensure");
    };
    ensure_without_first(2).await;
    let two = ready(&*backend, id, 2).await;
    if backend.capabilities().exact_victims {
        assert_eq!(starts(&two), starts(&three[1..]), "exactly the one that retires has ended");
    }
    backend.ensure(&wanted, 2, &[ReplicaId("another".to_owned())], &fence(1)).await.expect("ensure");
    assert_eq!(starts(&ready(&*backend, id, 2).await), starts(&two), "a name that nobody has ends nothing");
    let last = two[1].id.clone();
    backend.ensure(&wanted, 2, std::slice::from_ref(&last), &fence(1)).await.expect("ensure");
    let replaced = || async {
        let replicas = observe(&*backend, id).await;
        let other = live(&replicas).any(|replica| !starts(&two).contains(&starts(std::slice::from_ref(replica))[0]));
        other && replicas.len() == 2 && replicas.iter().all(|replica| replica.state == ReplicaState::Ready)
    };
    eventually("another replica in the place of the one that retires", replaced).await;
    gone(&*backend, id, None, 1).await;
}

async fn revisions_run_side_by_side_and_are_removed_alone(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    ensure(&*backend, &place.revision(id, RevisionNumber(1)), 1, 1).await;
    ready(&*backend, id, 1).await;
    ensure(&*backend, &place.revision(id, RevisionNumber(2)), 2, 1).await;
    let both = ready(&*backend, id, 3).await;
    assert_eq!(both.iter().filter(|r| r.revision == RevisionNumber(2)).count(), 2);
    gone(&*backend, id, Some(RevisionNumber(1)), 1).await;
    let left = ready(&*backend, id, 2).await;
    assert!(left.iter().all(|r| r.revision == RevisionNumber(2)), "the other revision was touched: {left:?}");
    gone(&*backend, id, None, 1).await;
}

async fn an_older_fence_is_refused(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let wanted = place.revision(id, RevisionNumber(1));
    ensure(&*backend, &wanted, 1, 7).await;
    let before = ready(&*backend, id, 1).await;

    let other = place.open().await;
    for backend in [&backend, &other] {
        let grown = backend.ensure(&wanted, 2, &[], &fence(6)).await;
        assert!(matches!(grown, Err(BackendError::Fenced { given: 6, newest: 7 })), "ensure: {grown:?}");
        let removed = backend.remove(id, None, &fence(6)).await;
        assert!(matches!(removed, Err(BackendError::Fenced { given: 6, newest: 7 })), "remove: {removed:?}");
    }
    assert_eq!(starts(&ready(&*backend, id, 1).await), starts(&before), "a refused call has changed something");
    gone(&*backend, id, None, 8).await;
}

async fn removing_what_is_not_there_is_harmless(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    backend.remove(id, None, &fence(1)).await.expect("removing an unknown deployment");
    backend.remove(id, Some(RevisionNumber(3)), &fence(1)).await.expect("removing an unknown revision");
    assert_eq!(observe(&*backend, id).await, []);
}

async fn a_reopened_backend_finds_what_runs_and_does_not_double_it(place: &dyn Place, id: DeploymentId) {
    let wanted = place.revision(id, RevisionNumber(1));
    let before = {
        let backend = place.open().await;
        ensure(&*backend, &wanted, 2, 1).await;
        ready(&*backend, id, 2).await
    };
    let backend = place.open().await;
    let after = ready(&*backend, id, 2).await;
    assert_eq!(starts(&after), starts(&before), "reopening has replaced what ran");
    let all = backend.observe_all().await.expect("observe_all");
    assert!(before.iter().all(|replica| all.iter().any(|found| found.id == replica.id)), "observe_all misses some");
    ensure(&*backend, &wanted, 2, 2).await;
    assert_eq!(starts(&ready(&*backend, id, 2).await), starts(&before), "ensure has doubled what was found");
    gone(&*backend, id, None, 2).await;
    let all = backend.observe_all().await.expect("observe_all");
    assert!(all.iter().all(|replica| replica.deployment != id), "observe_all shows what is gone");
}

async fn a_replica_that_ends_by_itself_says_why_and_is_started_again(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let mut changes = backend.changes();
    let broken = place.broken(id, RevisionNumber(4));
    ensure(&*backend, &broken, 1, 1).await;
    let ended = async {
        loop {
            let changed = changes.next().await.expect("changes() ended while the backend lives");
            let replicas = observe(&*backend, id).await;
            if changed == id && replicas.iter().any(|r| r.state == ReplicaState::BackingOff) {
                return replicas;
            }
        }
    };
    let replicas = within("a change that tells that the replica has ended", ended).await;
    assert_eq!(replicas.len(), 1, "a replica that backs off is still one replica: {replicas:?}");
    let failure = replicas[0].failure.as_ref().expect("a replica that ended by itself says how");
    assert_eq!(failure.error.revision, RevisionNumber(4));
    assert!(!failure.error.code.is_empty() && !failure.error.message.is_empty(), "{failure:?}");
    assert!(replicas[0].retry_at.is_some(), "a replica that backs off says until when");

    let again = || async {
        ensure(&*backend, &broken, 1, 1).await;
        observe(&*backend, id).await.iter().any(|replica| replica.restarts >= 1)
    };
    eventually("a restart once its back-off has passed", again).await;
    assert_eq!(observe(&*backend, id).await.len(), 1, "a restart keeps the replica's place");
    gone(&*backend, id, None, 1).await;
}

async fn logs_are_there_for_known_replicas_only(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let unknown = ReplicaId(format!("{id}-r9-9"));
    assert!(backend.logs(&unknown, 10, false).await.expect("logs").is_none(), "logs of an unknown replica");
    ensure(&*backend, &place.revision(id, RevisionNumber(1)), 1, 1).await;
    let replica = ready(&*backend, id, 1).await.remove(0).id;
    let log = backend.logs(&replica, 10, false).await.expect("logs").expect("logs of a known replica");
    let chunks = within("the end of a log that is not followed", log.collect::<Vec<_>>()).await;
    assert!(chunks.iter().all(Result::is_ok), "{chunks:?}");
    gone(&*backend, id, None, 1).await;
}

async fn another_epoch_s_replicas_run_on_beside_one_s_own(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let wanted = place.revision(id, RevisionNumber(1));
    let (old, new) = (fence_of("old", 50), fence_of("new", 1));
    backend.ensure(&wanted, 2, &[], &old).await.expect("ensure");
    let theirs = starts(&ready(&*backend, id, 2).await);

    // A database that is new, or was restored, gives small numbers, and the names that the old one gave.
    let backend = place.open().await;
    backend.ensure(&wanted, 1, &[], &new).await.expect("an old fence of another epoch binds nobody");
    let all = ready(&*backend, id, 3).await;
    let (ours, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|replica| replica.is_of(&new.epoch));
    assert_eq!((ours.len(), starts(&others)), (1, theirs.clone()), "the others were touched, or counted");
    assert_eq!(ours[0].origin, Some(new.origin(wanted.created_at)), "a replica says who started it, and for what");

    let retire: Vec<ReplicaId> = others.iter().map(|replica| replica.id.clone()).collect();
    backend.ensure(&wanted, 0, &retire, &new).await.expect("ensure");
    eventually("one's own to end", || async { observe(&*backend, id).await.len() == 2 }).await;
    backend.remove(id, None, &fence_of("new", 99)).await.expect("remove");
    assert_eq!(starts(&ready(&*backend, id, 2).await), theirs, "removing has touched another epoch's replicas");
    remove_all(&*backend, id, &old).await;
}

async fn what_was_taken_over_is_one_s_own(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let wanted = place.revision(id, RevisionNumber(1));
    let (old, new) = (fence_of("old", 7), fence_of("new", 3));
    backend.ensure(&wanted, 2, &[], &old).await.expect("ensure");
    let before = ready(&*backend, id, 2).await;
    let gone = ReplicaId(format!("{id}-r9-9"));
    let names = [(before[0].id.clone(), wanted.created_at), (gone, wanted.created_at)];
    backend.take_over(id, &names, &new).await.expect("take_over");

    let backend = place.open().await;
    backend.ensure(&wanted, 1, &[], &new).await.expect("ensure");
    let after = ready(&*backend, id, 2).await;
    assert_eq!(starts(&after), starts(&before), "taking over has replaced something, or it does not count");
    assert_eq!(after[0].origin, Some(new.origin(wanted.created_at)));
    assert!(after[1].is_of(&old.epoch), "one that was not named is another's still");
    remove_all(&*backend, id, &new).await;
    assert_eq!(starts(&observe(&*backend, id).await), starts(&before[1..]));
    remove_all(&*backend, id, &old).await;
}

async fn an_epoch_that_another_continues_is_refused(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let wanted = place.revision(id, RevisionNumber(1));
    backend.ensure(&wanted, 1, &[], &fence_of("old", 7)).await.expect("ensure");
    let later = Fence { former: vec![Epoch("old".to_owned())], ..fence_of("new", 1) };
    let replica = ready(&*backend, id, 1).await.remove(0);
    backend.take_over(id, &[(replica.id, wanted.created_at)], &later).await.expect("take_over");
    let late = backend.ensure(&wanted, 3, &[], &fence_of("old", 8)).await;
    assert!(matches!(late, Err(BackendError::Fenced { given: 8, .. })), "{late:?}");
    assert_eq!(ready(&*backend, id, 1).await.len(), 1, "a refused call has changed something");
    remove_all(&*backend, id, &later).await;
}

async fn a_stray_is_ended_by_its_name_only(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    let wanted = place.revision(id, RevisionNumber(1));
    let (old, new) = (fence_of("old", 7), fence_of("new", 1));
    backend.ensure(&wanted, 2, &[], &old).await.expect("ensure");
    backend.ensure(&wanted, 1, &[], &new).await.expect("ensure");
    let all = ready(&*backend, id, 3).await;
    let (ours, strays): (Vec<_>, Vec<_>) = all.iter().partition(|replica| replica.is_of(&new.epoch));
    let missing = ReplicaId(format!("{id}-r9-9"));
    for replica in [&missing, &ours[0].id, &strays[0].id, &strays[0].id] {
        backend.end_stray(replica, &new.epoch).await.expect("end_stray");
    }
    eventually("the stray to end", || async { observe(&*backend, id).await.len() == 2 }).await;
    let left = starts(&ready(&*backend, id, 2).await);
    assert_eq!(left, starts(&[strays[1].clone(), ours[0].clone()]), "another one was ended");
    remove_all(&*backend, id, &old).await;
    remove_all(&*backend, id, &new).await;
}

async fn what_ended_is_revived_without_a_fence(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    ensure(&*backend, &place.broken(id, RevisionNumber(1)), 1, 1).await;
    let (ours, other) = (fence(1).epoch, fence_of("other", 1).epoch);
    let backs_off = || async { observe(&*backend, id).await.iter().any(|it| it.state == ReplicaState::BackingOff) };
    eventually("it to end by itself", backs_off).await;

    // Like a new worker, which has never seen the revision.
    let backend = place.open().await;
    let again = || async {
        assert_eq!(backend.revive(id, &other).await.expect("revive"), None, "another epoch's is left alone");
        backend.revive(id, &ours).await.expect("revive");
        observe(&*backend, id).await.iter().any(|replica| replica.restarts >= 2)
    };
    eventually("it to be started again and again", again).await;
    assert_eq!(observe(&*backend, id).await.len(), 1, "a revival keeps the replica's place");
    gone(&*backend, id, None, 1).await;
    assert_eq!(backend.revive(id, &ours).await.expect("revive"), None);
    assert_eq!(observe(&*backend, id).await, [], "what was removed came back");
}

async fn shutdown_leaves_nothing_but_other_epochs_replicas(place: &dyn Place, id: DeploymentId) {
    let backend = place.open().await;
    ensure(&*backend, &place.revision(id, RevisionNumber(1)), 2, 1).await;
    let other = fence_of("other", 1);
    backend.ensure(&place.revision(id, RevisionNumber(1)), 1, &[], &other).await.expect("ensure");
    ready(&*backend, id, 3).await;
    within("shutdown", backend.shutdown(Duration::from_secs(10), &fence(1).epoch)).await.expect("shutdown");
    let left = backend.observe_all().await.expect("observe_all");
    assert!(left.len() == 1 && left[0].is_of(&other.epoch), "{left:?}");
    within("shutdown", backend.shutdown(Duration::from_secs(10), &other.epoch)).await.expect("shutdown");
    assert_eq!(backend.observe_all().await.expect("observe_all"), [], "something survived the shutdown");
}

/// The values that are equal if two replicas are the same running instance.
fn starts(replicas: &[Replica]) -> Vec<(ReplicaId, Option<Timestamp>, u32)> {
    replicas.iter().map(|r| (r.id.clone(), r.started_at, r.restarts)).collect()
}

fn live(replicas: &[Replica]) -> impl Iterator<Item = &Replica> {
    replicas.iter().filter(|replica| replica.state != ReplicaState::Stopping)
}

async fn ensure(backend: &dyn Backend, revision: &Revision, want: u32, number: i64) {
    backend.ensure(revision, want, &[], &fence(number)).await.expect("ensure");
}

async fn observe(backend: &dyn Backend, id: DeploymentId) -> Vec<Replica> {
    backend.observe(id).await.expect("observe")
}

async fn ready(backend: &dyn Backend, id: DeploymentId, count: usize) -> Vec<Replica> {
    let all_ready = || async {
        let replicas = observe(backend, id).await;
        replicas.len() == count && replicas.iter().all(|r| r.state == ReplicaState::Ready)
    };
    eventually(&format!("{count} ready replicas of {id}"), all_ready).await;
    observe(backend, id).await
}

/// Removes the replicas of this epoch, and repeats until none is left.
async fn remove_all(backend: &dyn Backend, id: DeploymentId, fence: &Fence) {
    let empty = || async {
        backend.remove(id, None, fence).await.expect("remove");
        observe(backend, id).await.iter().all(|replica| !replica.is_of(&fence.epoch))
    };
    eventually(&format!("{id} to be gone"), empty).await;
}

/// Removes all replicas, and repeats until none is left.
async fn gone(backend: &dyn Backend, id: DeploymentId, revision: Option<RevisionNumber>, number: i64) {
    let fence = fence(number);
    let empty = || async {
        backend.remove(id, revision, &fence).await.expect("remove");
        observe(backend, id).await.iter().all(|r| revision.is_some_and(|only| only != r.revision))
    };
    eventually(&format!("{id} to be gone"), empty).await;
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(GLANCE).await;
        }
    };
    within(what, looking).await;
}

async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}
