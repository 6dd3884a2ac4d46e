//! A backend that runs nothing, for tests and for measurements of the control plane.
//!
//! It implements all of [`Backend`] in memory. Clones are the same machine, so a clone behaves like a new process on
//! that machine. The environment of a revision selects the behaviour of its replicas, so that a test can choose it
//! through the API too. By default they become ready.
//!
//! **Invariant:** no process, no file, no socket. Nothing answers at its addresses.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{
    DeploymentId, Epoch, Fence, ReplicaId, Revision, RevisionNumber, Timestamp,
    deployment::StatusError,
    registry::ModelContent,
    replica::{Address, ReplicaState},
    revision::FoundFiles,
};
use async_trait::async_trait;
use base::{
    Clock, Tasks,
    config::{Faults, Section},
};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{Backend, BackendError, Capabilities, Failure, Replica, Restarts};

/// The environment variable of a revision that selects the behaviour of its replicas: [`CRASH`], [`HANG`] or
/// [`INVALID`].
pub const BEHAVIOUR: &str = "MODELWAY_FAKE";
/// A replica ends by itself instead of becoming ready.
pub const CRASH: &str = "crash";
/// A replica starts and never becomes ready.
pub const HANG: &str = "hang";
/// A replica ends by itself and reports that a person must change its model.
pub const INVALID: &str = "invalid";

/// How many changes a slow listener may lag behind before it gets a change for every deployment instead.
const CHANGES: usize = 1_024;

/// The timing of the simulated replicas.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a replica takes to become ready (or to crash), in milliseconds. With 0 it is ready when `ensure`
    /// returns.
    pub ready_after_ms: u64,
    /// How long a replica that was told to stop is observed as stopping, in milliseconds.
    pub drain_ms: u64,
    /// How long a replica that ended by itself backs off, in milliseconds.
    pub backoff_ms: u64,
    /// The address of every replica, `host:port`.
    pub address: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { ready_after_ms: 0, drain_ms: 0, backoff_ms: 20, address: "127.0.0.1:9".to_owned() }
    }
}

impl Section for Config {
    fn check(&self, faults: &mut Faults) {
        faults.address("address", &self.address);
        faults.pauses(&[
            ("ready_after_ms", self.ready_after_ms),
            ("drain_ms", self.drain_ms),
            ("backoff_ms", self.backoff_ms),
        ]);
    }
}

/// The backend. Clones are the same simulated machine.
#[derive(Clone, Debug)]
pub struct FakeBackend {
    config: Arc<Config>,
    machine: Arc<Mutex<Machine>>,
    changes: broadcast::Sender<DeploymentId>,
    tasks: Tasks,
    clock: Clock,
    scope: Arc<str>,
}

#[derive(Debug, Default)]
struct Machine {
    deployments: BTreeMap<DeploymentId, Slots>,
    starts: u64,
}

#[derive(Debug, Default)]
struct Slots {
    /// The highest fence of each epoch.
    fences: BTreeMap<Epoch, i64>,
    /// By revision and ordinal, which is also the natural order of names.
    replicas: BTreeMap<(RevisionNumber, u32), Slot>,
}

#[derive(Debug)]
struct Slot {
    replica: Replica,
    behaviour: Option<String>,
    /// Increases with each start and stop; it makes earlier timers stale.
    turn: u64,
}

/// What a timer does to a slot when it fires.
#[derive(Clone, Copy)]
enum Then {
    Settle,
    Vanish,
}

impl FakeBackend {
    /// A machine on which nothing runs yet.
    #[must_use]
    pub fn new(config: Config, tasks: Tasks, clock: Clock) -> Self {
        let (changes, _) = broadcast::channel(CHANGES);
        Self { config: Arc::new(config), machine: Arc::default(), changes, tasks, clock, scope: "fake".into() }
    }

    /// The same under another scope, for two machines on one database.
    #[must_use]
    pub fn in_scope(self, scope: &str) -> Self {
        Self { scope: scope.into(), ..self }
    }

    /// How many processes were started since the machine was created, including restarts.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.machine().starts
    }

    /// Ends one replica as if it had crashed. Returns whether it was running.
    #[must_use]
    pub fn crash(&self, id: &ReplicaId) -> bool {
        let now = Timestamp::from(self.clock.now());
        let mut machine = self.machine();
        let slot = machine.slots_mut().find(|slot| &slot.replica.id == id);
        let Some(slot) = slot.filter(|s| matches!(s.replica.state, ReplicaState::Starting | ReplicaState::Ready))
        else {
            return false;
        };
        self.end_badly(slot, false, now);
        let deployment = slot.replica.deployment;
        drop(machine);
        self.tell(deployment);
        true
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is no error if nobody listens: `observe` shows everything later.
    fn tell(&self, deployment: DeploymentId) {
        let _ = self.changes.send(deployment);
    }

    fn start(&self, slot: &mut Slot, now: Timestamp) {
        slot.turn += 1;
        slot.replica.state = ReplicaState::Starting;
        slot.replica.started_at = Some(now);
        slot.replica.retry_at = None;
    }

    fn end_badly(&self, slot: &mut Slot, permanent: bool, now: Timestamp) {
        let revision = slot.replica.revision;
        let (code, message) = match permanent {
            true => ("model_invalid", "the pretended model is invalid"),
            false => ("crash_loop", "the pretended process exited with status 1"),
        };
        slot.turn += 1;
        slot.replica.state = ReplicaState::BackingOff;
        slot.replica.retry_at = Some(now.after(Duration::from_millis(self.config.backoff_ms)));
        slot.replica.failure = Some(Failure {
            error: StatusError {
                code: code.to_owned(),
                message: message.to_owned(),
                revision,
                log: vec![format!("{}: {message}", slot.replica.id)],
            },
            permanent,
        });
    }

    /// The start time of a replica is over: it is ready, crashes, or hangs, as selected.
    fn settle(&self, slot: &mut Slot, now: Timestamp) {
        match slot.behaviour.as_deref() {
            Some(HANG) => {}
            Some(CRASH) => self.end_badly(slot, false, now),
            Some(INVALID) => self.end_badly(slot, true, now),
            _ => {
                slot.replica.state = ReplicaState::Ready;
                slot.replica.failure = None;
            }
        }
    }

    /// Does `then` to a slot after `wait` unless it was started or stopped again since.
    fn later(&self, key: (DeploymentId, RevisionNumber, u32), turn: u64, wait_ms: u64, then: Then) {
        let this = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                () = this.tasks.stopping() => return,
            }
            let now = Timestamp::from(this.clock.now());
            let (deployment, revision, ordinal) = key;
            {
                let mut machine = this.machine();
                let Some(slots) = machine.deployments.get_mut(&deployment) else { return };
                let Some(slot) = slots.replicas.get_mut(&(revision, ordinal)).filter(|slot| slot.turn == turn) else {
                    return;
                };
                match then {
                    Then::Settle => this.settle(slot, now),
                    Then::Vanish => {
                        slots.replicas.remove(&(revision, ordinal));
                    }
                }
            }
            this.tell(deployment);
        });
    }

    /// Tells these replicas of a deployment to stop.
    fn stop(&self, slots: &mut Slots, deployment: DeploymentId, keys: &[(RevisionNumber, u32)]) {
        for &key in keys {
            let Some(slot) = slots.replicas.get_mut(&key) else { continue };
            let runs = matches!(slot.replica.state, ReplicaState::Starting | ReplicaState::Ready);
            if slot.replica.state == ReplicaState::Stopping {
                continue;
            }
            if self.config.drain_ms == 0 || !runs {
                slots.replicas.remove(&key);
                continue;
            }
            slot.turn += 1;
            slot.replica.state = ReplicaState::Stopping;
            self.later((deployment, key.0, key.1), slot.turn, self.config.drain_ms, Then::Vanish);
        }
    }

    fn admit(slots: &mut Slots, fence: &Fence) -> Result<(), BackendError> {
        let newest = slots.fences.entry(fence.epoch.clone()).or_insert(fence.number);
        if fence.number < *newest {
            return Err(BackendError::Fenced { given: fence.number, newest: *newest });
        }
        *newest = fence.number;
        slots.fences.extend(fence.former.iter().map(|former| (former.clone(), i64::MAX)));
        Ok(())
    }
}

impl Machine {
    fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.deployments.values_mut().flat_map(|slots| slots.replicas.values_mut())
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn scope(&self) -> String {
        self.scope.to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { exact_victims: true, restarts: Restarts::Caller }
    }

    async fn ensure(
        &self,
        revision: &Revision,
        want: u32,
        retire: &[ReplicaId],
        fence: &Fence,
    ) -> Result<(), BackendError> {
        if let ModelContent::Image { reference } = &revision.spec.content {
            return Err(BackendError::Rejected {
                backend: "fake",
                reason: format!("it has no containers to run {reference} in; name a model's files instead"),
            });
        }
        let now = Timestamp::from(self.clock.now());
        let (deployment, number) = (revision.deployment, revision.number);
        let at_once = self.config.ready_after_ms == 0;
        let mut told = false;
        {
            let mut machine = self.machine();
            let Machine { deployments, starts } = &mut *machine;
            let slots = deployments.entry(deployment).or_default();
            Self::admit(slots, fence)?;

            let ours = slots.replicas.iter().filter(|(_, slot)| slot.replica.is_of(&fence.epoch));
            let retired = ours.filter(|((of, _), slot)| *of == number && retire.contains(&slot.replica.id));
            let retired: Vec<_> = retired.map(|(key, _)| *key).collect();
            self.stop(slots, deployment, &retired);
            let mut live: Vec<(bool, (RevisionNumber, u32))> = slots
                .replicas
                .iter()
                .filter(|((of, _), slot)| *of == number && slot.replica.is_of(&fence.epoch))
                .filter(|(_, slot)| slot.replica.state != ReplicaState::Stopping)
                .map(|(key, slot)| (slot.replica.state != ReplicaState::Ready, *key))
                .collect();
            live.sort_unstable();
            let want = usize::try_from(want).unwrap_or(usize::MAX);
            let surplus: Vec<_> = live.iter().skip(want).map(|(_, key)| *key).collect();
            self.stop(slots, deployment, &surplus);

            let mut begun = Vec::new();
            for (_, key) in live.iter().take(want) {
                let Some(slot) = slots.replicas.get_mut(key) else { continue };
                if slot.replica.retry_at.is_some_and(|due| due <= now) {
                    slot.replica.restarts += 1;
                    self.start(slot, now);
                    begun.push(*key);
                }
            }
            let free = (0..).filter(|n| !slots.replicas.contains_key(&(number, *n)));
            let free: Vec<u32> = free.take(want.saturating_sub(live.len())).collect();
            for ordinal in free {
                let mut slot = self.new_slot(revision, ordinal, fence);
                self.start(&mut slot, now);
                slots.replicas.insert((number, ordinal), slot);
                begun.push((number, ordinal));
            }
            for key in begun {
                *starts += 1;
                let Some(slot) = slots.replicas.get_mut(&key) else { continue };
                if at_once {
                    self.settle(slot, now);
                    told = true;
                } else {
                    self.later((deployment, key.0, key.1), slot.turn, self.config.ready_after_ms, Then::Settle);
                }
            }
        }
        if told {
            self.tell(deployment);
        }
        Ok(())
    }

    async fn observe(&self, deployment: DeploymentId) -> Result<Vec<Replica>, BackendError> {
        let machine = self.machine();
        let slots = machine.deployments.get(&deployment).into_iter();
        Ok(in_order_of_names(slots.flat_map(|slots| slots.replicas.values())))
    }

    async fn observe_all(&self) -> Result<Vec<Replica>, BackendError> {
        let machine = self.machine();
        Ok(in_order_of_names(machine.deployments.values().flat_map(|slots| slots.replicas.values())))
    }

    async fn remove(
        &self,
        deployment: DeploymentId,
        revision: Option<RevisionNumber>,
        fence: &Fence,
    ) -> Result<(), BackendError> {
        let mut machine = self.machine();
        let Some(slots) = machine.deployments.get_mut(&deployment) else { return Ok(()) };
        Self::admit(slots, fence)?;
        let meant =
            |replica: &Replica| replica.is_of(&fence.epoch) && revision.is_none_or(|only| only == replica.revision);
        let keys: Vec<_> = slots.replicas.iter().filter(|(_, it)| meant(&it.replica)).map(|(key, _)| *key).collect();
        self.stop(slots, deployment, &keys);
        Ok(())
    }

    async fn take_over(
        &self,
        deployment: DeploymentId,
        replicas: &[(ReplicaId, Timestamp)],
        fence: &Fence,
    ) -> Result<(), BackendError> {
        let mut machine = self.machine();
        let Some(slots) = machine.deployments.get_mut(&deployment) else { return Ok(()) };
        Self::admit(slots, fence)?;
        for slot in slots.replicas.values_mut() {
            if let Some((_, made_at)) = replicas.iter().find(|(id, _)| *id == slot.replica.id) {
                slot.replica.origin = Some(fence.origin(*made_at));
            }
        }
        Ok(())
    }

    async fn revive(&self, deployment: DeploymentId, epoch: &Epoch) -> Result<Option<Timestamp>, BackendError> {
        let now = Timestamp::from(self.clock.now());
        let (mut next, mut due) = (None::<Timestamp>, false);
        {
            let mut machine = self.machine();
            let Machine { deployments, starts } = &mut *machine;
            let Some(slots) = deployments.get_mut(&deployment) else { return Ok(None) };
            for ((revision, ordinal), slot) in &mut slots.replicas {
                match slot.replica.retry_at.filter(|_| slot.replica.is_of(epoch)) {
                    Some(retry_at) if retry_at <= now => {
                        slot.replica.restarts += 1;
                        self.start(slot, now);
                        *starts += 1;
                        let key = (deployment, *revision, *ordinal);
                        self.later(key, slot.turn, self.config.ready_after_ms, Then::Settle);
                        due = true;
                    }
                    Some(retry_at) => next = Some(next.map_or(retry_at, |next| next.min(retry_at))),
                    None => {}
                }
            }
        }
        if due {
            self.tell(deployment);
        }
        Ok(next)
    }

    async fn end_stray(&self, replica: &ReplicaId, ours: &Epoch) -> Result<(), BackendError> {
        for (deployment, slots) in &mut self.machine().deployments {
            let meant = |slot: &Slot| slot.replica.id == *replica && !slot.replica.is_of(ours);
            let keys: Vec<_> = slots.replicas.iter().filter(|(_, slot)| meant(slot)).map(|(key, _)| *key).collect();
            self.stop(slots, *deployment, &keys);
        }
        Ok(())
    }

    fn changes(&self) -> BoxStream<'static, DeploymentId> {
        let mut receiver = self.changes.subscribe();
        let this = self.clone();
        async_stream::stream! {
            loop {
                match receiver.recv().await {
                    Ok(deployment) => yield deployment,
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        let all: Vec<_> = this.machine().deployments.keys().copied().collect();
                        for deployment in all {
                            yield deployment;
                        }
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        }
        .boxed()
    }

    async fn logs(
        &self,
        replica: &ReplicaId,
        tail: usize,
        follow: bool,
    ) -> Result<Option<BoxStream<'static, std::io::Result<Bytes>>>, BackendError> {
        let known = self.machine().slots_mut().any(|slot| &slot.replica.id == replica);
        if !known {
            return Ok(None);
        }
        let lines = ["starting\n", "there is nothing behind this replica\n"];
        let lines =
            lines[lines.len().saturating_sub(tail)..].iter().map(|line| Ok(Bytes::from_static(line.as_bytes())));
        let lines = futures::stream::iter(lines.collect::<Vec<_>>());
        Ok(Some(if follow { lines.chain(futures::stream::pending()).boxed() } else { lines.boxed() }))
    }

    async fn shutdown(&self, _patience: Duration, epoch: &Epoch) -> Result<(), BackendError> {
        for slots in self.machine().deployments.values_mut() {
            slots.replicas.retain(|_, slot| !slot.replica.is_of(epoch));
        }
        Ok(())
    }
}

impl FakeBackend {
    fn new_slot(&self, revision: &Revision, ordinal: u32, fence: &Fence) -> Slot {
        let replica = Replica {
            id: ReplicaId(format!("{}-r{}-{ordinal}", revision.deployment, revision.number)),
            deployment: revision.deployment,
            revision: revision.number,
            state: ReplicaState::Starting,
            address: Some(Address::Tcp(self.config.address.clone())),
            started_at: None,
            restarts: 0,
            failure: None,
            retry_at: None,
            artifact: None,
            files: found_files(revision),
            notes: Vec::new(),
            origin: Some(fence.origin(revision.created_at)),
        };
        Slot { replica, behaviour: revision.spec.env.get(BEHAVIOUR).cloned(), turn: 0 }
    }
}

/// It serves the requested model, as if it had been there.
fn found_files(revision: &Revision) -> Option<FoundFiles> {
    let ModelContent::Artifact { uris, .. } = &revision.spec.content else { return None };
    let digest = revision.pin.as_ref().map_or_else(|| format!("sha256:{:064}", 0), |pin| pin.files.digest.clone());
    Some(FoundFiles { uri: uris.first().cloned().unwrap_or_default(), digest, fingerprint: None })
}

fn in_order_of_names<'s>(slots: impl Iterator<Item = &'s Slot>) -> Vec<Replica> {
    let mut replicas: Vec<Replica> = slots.map(|slot| slot.replica.clone()).collect();
    replicas.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Place};

    struct Here {
        backend: FakeBackend,
    }

    #[async_trait]
    impl Place for Here {
        async fn open(&self) -> Arc<dyn Backend> {
            Arc::new(self.backend.clone())
        }

        fn revision(&self, deployment: DeploymentId, number: RevisionNumber) -> Revision {
            conformance::revision(deployment, number, "/pretended/model")
        }

        fn broken(&self, deployment: DeploymentId, number: RevisionNumber) -> Revision {
            let mut revision = self.revision(deployment, number);
            revision.spec.env.insert(BEHAVIOUR.to_owned(), CRASH.to_owned());
            revision
        }
    }

    async fn conforms(ready_after_ms: u64, drain_ms: u64) {
        let config = Config { ready_after_ms, drain_ms, ..Config::default() };
        let backend = FakeBackend::new(config, Tasks::new(), Clock::system());
        conformance::run(&Here { backend }).await;
    }

    #[tokio::test]
    async fn the_fake_backend_conforms_when_everything_is_immediate() {
        conforms(0, 0).await;
    }

    #[tokio::test]
    async fn the_fake_backend_conforms_when_everything_takes_its_time() {
        conforms(15, 15).await;
    }
}
