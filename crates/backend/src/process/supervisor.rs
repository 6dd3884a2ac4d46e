//! The operations that change replicas, each under the lock of the deployment.
//!
//! Everything here blocks its thread, on files and while a process is started, and is called from blocking tasks.
//! Nothing here waits for a replica.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::{
    DeploymentId, Epoch, Fence, Origin, ReplicaId, Revision, RevisionNumber, Timestamp,
    deployment::MachineType,
    registry::ModelContent,
    revision::{FoundFiles, Pin},
};
use base::{Clock, Tasks};
use rustix::process::Signal;
use tokio::sync::broadcast;

use super::{
    backoff, cgroup,
    ending::{self, End},
    failure::{BACKEND, unavailable},
    identity::Identity,
    launch::{Launcher, forget},
    layout::{Name, at},
    live::Watch,
    log, secrets,
    slot::{self, DeploymentLock, Found, Phase, Record},
};
use crate::BackendError;

/// The replicas of one data directory, as handled by this process.
#[derive(Debug)]
pub(super) struct Supervisor {
    /// Starts processes.
    pub(super) launcher: Launcher,
    /// The tasks of the watchers.
    pub(super) tasks: Tasks,
    /// The clock.
    pub(super) clock: Clock,
    /// The watched processes, by the name of the replica.
    pub(super) watches: Mutex<HashMap<ReplicaId, Watch>>,
    /// The deployments whose replicas changed by themselves.
    pub(super) changes: broadcast::Sender<DeploymentId>,
    /// Set when all replicas are being ended.
    pub(super) closed: AtomicBool,
}

impl Supervisor {
    /// The current time, as recorded.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// Notifies listeners. It is no error if there are none: they read everything when they start.
    pub(super) fn changed(&self, deployment: DeploymentId) {
        let _ = self.changes.send(deployment);
    }

    /// All records, or those of one deployment, sorted. Takes no lock, so each is a snapshot.
    pub(super) fn records(&self, only: Option<DeploymentId>) -> io::Result<Vec<(Name, Record)>> {
        let mut records = Vec::new();
        for name in self.launcher.layout.names(only)? {
            match slot::read(&self.launcher.layout.slot(&name.id()))? {
                Found::Record(record) => records.push((name, *record)),
                Found::Nothing => {}
                Found::Damaged(reason) => tracing::warn!(replica = %name.id(), reason, "a replica's record is damaged"),
            }
        }
        Ok(records)
    }

    /// The records of one deployment, after completing or undoing everything that a crash interrupted. A replica with a
    /// damaged record that may be of another epoch than `ours` is left alone.
    fn settled(
        self: &Arc<Self>,
        _lock: &DeploymentLock,
        deployment: DeploymentId,
        ours: Option<&Epoch>,
    ) -> io::Result<Vec<(Name, Record)>> {
        let mut records = Vec::new();
        for name in self.launcher.layout.names(Some(deployment))? {
            let slot = self.launcher.layout.slot(&name.id());
            let record = match slot::read(&slot)? {
                Found::Record(record) => *record,
                // The record is written before anything is started.
                Found::Nothing => {
                    remove_slot(&slot)?;
                    continue;
                }
                Found::Damaged(reason) => {
                    let process = self.launcher.find(&name.id());
                    if process.as_ref().is_some_and(|process| !ours.is_some_and(|ours| process.is_of(ours))) {
                        tracing::warn!(replica = %name.id(), reason, "a replica's record is damaged; it is left alone");
                        continue;
                    }
                    tracing::warn!(replica = %name.id(), reason, "a replica's record is damaged; it is removed");
                    if let Some(process) = process {
                        process.kill_group(&self.launcher.mark(&name.id()))?;
                    }
                    forget(&self.launcher.layout.socket(&name.id()))?;
                    remove_slot(&slot)?;
                    continue;
                }
            };
            if !matches!(record.phase, Phase::Launching) {
                records.push((name, record));
                continue;
            }
            let now = self.now();
            match self.launcher.recover(record.clone(), now)? {
                Some(found) => records.push((name, found)),
                None if record.failures == 0 => self.forget(&record)?,
                None => {
                    let waiting = Record { phase: Phase::BackingOff { retry_at: now }, ..record };
                    slot::write(&slot, &waiting)?;
                    records.push((name, waiting));
                }
            }
        }
        Ok(records)
    }

    /// Completes the work of earlier processes, and watches running replicas.
    pub(super) fn adopt(self: &Arc<Self>) -> io::Result<()> {
        let layout = &self.launcher.layout;
        let deployments: HashSet<DeploymentId> = layout.names(None)?.iter().map(|name| name.deployment).collect();
        for deployment in deployments {
            let lock = DeploymentLock::take(layout, deployment)?;
            self.disown_strangers(&lock, deployment)?;
            for (name, record) in self.settled(&lock, deployment, None)? {
                // The crash may have prevented the signal.
                if let Phase::Stopping { run, .. } = &record.phase {
                    run.process.signal(Signal::TERM)?;
                }
                self.attach(name, &record);
            }
        }
        self.launcher.limiter.tidy(|group| layout.slot(&ReplicaId(group.to_owned())).exists());
        slot::tidy_locks(layout, self.clock.now(), Duration::from_secs(24 * 3_600))
    }

    /// Clears processes that are in records by mistake, so that the replicas' real processes are searched.
    fn disown_strangers(&self, _lock: &DeploymentLock, deployment: DeploymentId) -> io::Result<()> {
        for (name, record) in self.records(Some(deployment))? {
            if self.launcher.names_a_stranger(&record) {
                tracing::warn!(replica = %record.id, "a replica's record names a foreign process, which is left alone");
                let launching = Record { phase: Phase::Launching, ..record };
                slot::write(&self.launcher.layout.slot(&name.id()), &launching)?;
            }
        }
        Ok(())
    }

    /// See [`crate::Backend::ensure`].
    pub(super) fn ensure(
        self: &Arc<Self>,
        revision: &Revision,
        want: u32,
        retire: &[ReplicaId],
        fence: &Fence,
    ) -> Result<(), BackendError> {
        if want > 0 {
            check_runnable(revision)?;
        }
        let mut lock = DeploymentLock::take(&self.launcher.layout, revision.deployment).map_err(unavailable)?;
        if self.closed.load(Ordering::Acquire) {
            return Err(unavailable("it is shutting down"));
        }
        lock.check(fence)?;
        self.ensure_locked(&lock, revision, want, retire, fence).map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<secrets::Unusable>() => {
                BackendError::Rejected { backend: BACKEND, reason: inner.to_string() }
            }
            _ => unavailable(error),
        })
    }

    fn ensure_locked(
        self: &Arc<Self>,
        lock: &DeploymentLock,
        revision: &Revision,
        want: u32,
        retire: &[ReplicaId],
        fence: &Fence,
    ) -> io::Result<()> {
        let mut ours = self.settled(lock, revision.deployment, Some(&fence.epoch))?;
        ours.retain(|(name, record)| name.revision == revision.number && record.is_of(&fence.epoch));
        // Replicas of other epochs keep their ordinals too.
        let names = self.launcher.layout.names(Some(revision.deployment))?.into_iter();
        let taken: HashSet<u32> = names.filter(|it| it.revision == revision.number).map(|it| it.ordinal).collect();
        ours.retain(|(_, record)| record.stopping_since().is_none());
        let (retired, mut ours): (Vec<_>, Vec<_>) =
            ours.into_iter().partition(|(_, record)| retire.contains(&record.id));
        // Replicas that serve are kept first, then the oldest.
        ours.sort_by_key(|(name, record)| (self.rank(record), name.ordinal));
        let want = usize::try_from(want).unwrap_or(usize::MAX);
        let surplus = ours.split_off(ours.len().min(want));
        for (name, record) in retired.into_iter().chain(surplus) {
            self.end(name, record)?;
        }
        let now = self.now();
        let running = ours.len();
        for (name, record) in ours {
            let record = match record.phase {
                Phase::BackingOff { retry_at } if retry_at <= now => {
                    let origin = Some(fence.origin(revision.created_at));
                    let again = Record { restarts: record.restarts.saturating_add(1), origin, ..record };
                    self.launcher.launch(again, revision, now)?
                }
                Phase::BackingOff { .. } | Phase::Launching | Phase::Running(_) | Phase::Stopping { .. } => record,
            };
            self.attach(name, &record);
        }
        let free = (0..).filter(|ordinal| !taken.contains(ordinal));
        for ordinal in free.take(want - running) {
            let name = Name { deployment: revision.deployment, revision: revision.number, ordinal };
            let record = self.launcher.launch(fresh(name, fence.origin(revision.created_at)), revision, now)?;
            tracing::info!(replica = %record.id, pid = record.run().map(|run| run.process.pid), "started");
            self.attach(name, &record);
        }
        Ok(())
    }

    /// Which replica to keep first.
    fn rank(&self, record: &Record) -> u8 {
        match (&record.phase, self.is_ready(record)) {
            (Phase::Running(_), true) => 0,
            (Phase::Running(_), false) => 1,
            (Phase::Launching | Phase::BackingOff { .. } | Phase::Stopping { .. }, _) => 2,
        }
    }

    /// See [`crate::Backend::remove`].
    pub(super) fn remove(
        self: &Arc<Self>,
        deployment: DeploymentId,
        revision: Option<RevisionNumber>,
        fence: &Fence,
    ) -> Result<(), BackendError> {
        let mut lock = DeploymentLock::take(&self.launcher.layout, deployment).map_err(unavailable)?;
        lock.check(fence)?;
        let meant = |name: Name, record: &Record| {
            record.is_of(&fence.epoch) && revision.is_none_or(|revision| revision == name.revision)
        };
        self.end_those(&lock, deployment, Some(&fence.epoch), meant).map_err(unavailable)
    }

    /// See [`crate::Backend::take_over`].
    pub(super) fn take_over(
        self: &Arc<Self>,
        deployment: DeploymentId,
        replicas: &[(ReplicaId, Timestamp)],
        fence: &Fence,
    ) -> Result<(), BackendError> {
        let mut lock = DeploymentLock::take(&self.launcher.layout, deployment).map_err(unavailable)?;
        lock.check(fence)?;
        for (name, mut record) in self.records(Some(deployment)).map_err(unavailable)? {
            if let Some((_, made_at)) = replicas.iter().find(|(id, _)| *id == record.id) {
                record.origin = Some(fence.origin(*made_at));
                slot::write(&self.launcher.layout.slot(&name.id()), &record).map_err(unavailable)?;
            }
        }
        Ok(())
    }

    /// See [`crate::Backend::revive`].
    pub(super) fn revive(self: &Arc<Self>, deployment: DeploymentId, ours: &Epoch) -> io::Result<Option<Timestamp>> {
        let lock = DeploymentLock::take(&self.launcher.layout, deployment)?;
        if self.closed.load(Ordering::Acquire) {
            return Ok(None);
        }
        let now = self.now();
        let mut next = None::<Timestamp>;
        for (name, record) in self.settled(&lock, deployment, Some(ours))? {
            let Phase::BackingOff { retry_at } = record.phase else { continue };
            if !record.is_of(ours) {
                continue;
            }
            if retry_at > now {
                next = Some(next.map_or(retry_at, |next| next.min(retry_at)));
                continue;
            }
            // A replica that a version before 0.2.0 started waits for the database.
            let Some(mut revision) = slot::revision(&self.launcher.layout.slot(&record.id))? else { continue };
            if record.origin.as_ref().is_none_or(|origin| origin.made_at != revision.created_at) {
                continue;
            }
            // The revision was stored before its files were found.
            if revision.pin.is_none() {
                revision.pin = record.files.clone().map(|files| Pin { files, at: revision.created_at });
            }
            tracing::warn!(replica = %record.id, "a replica is started again without the database");
            let again = Record { restarts: record.restarts.saturating_add(1), ..record };
            let record = self.launcher.launch(again, &revision, now)?;
            self.attach(name, &record);
        }
        Ok(next)
    }

    /// See [`crate::Backend::end_stray`].
    pub(super) fn end_stray(self: &Arc<Self>, name: Name, ours: &Epoch) -> io::Result<()> {
        let lock = DeploymentLock::take(&self.launcher.layout, name.deployment)?;
        self.end_those(&lock, name.deployment, Some(ours), |other, record| other == name && !record.is_of(ours))
    }

    fn end_those(
        self: &Arc<Self>,
        lock: &DeploymentLock,
        deployment: DeploymentId,
        ours: Option<&Epoch>,
        meant: impl Fn(Name, &Record) -> bool,
    ) -> io::Result<()> {
        for (name, record) in self.settled(lock, deployment, ours)? {
            if meant(name, &record) {
                self.end(name, record)?;
            }
        }
        Ok(())
    }

    /// Tells every replica of an epoch to stop, even those whose records were removed, and starts no more. Returns
    /// their processes.
    pub(super) fn close(self: &Arc<Self>, ours: &Epoch) -> io::Result<Vec<(Name, Identity)>> {
        self.closed.store(true, Ordering::Release);
        let layout = &self.launcher.layout;
        layout.restore()?;
        let deployments: HashSet<DeploymentId> = layout.names(None)?.iter().map(|name| name.deployment).collect();
        for deployment in deployments {
            let lock = DeploymentLock::take(layout, deployment)?;
            self.end_those(&lock, deployment, Some(ours), |_, record| record.is_of(ours))?;
        }
        let (mut processes, mut known) = (Vec::new(), Vec::new());
        for (name, record) in self.records(None)? {
            if let Some(run) = record.run() {
                known.push(run.process.clone());
                if record.is_of(ours) {
                    processes.push((name, run.process.clone()));
                }
            }
        }
        for (name, process) in self.launcher.find_all() {
            if !known.contains(&process) && process.is_of(ours) {
                tracing::warn!(replica = %name.id(), pid = process.pid, "a replica without a record is told to end");
                process.signal(Signal::TERM)?;
                processes.push((name, process));
            }
        }
        Ok(processes)
    }

    /// Tells one replica to drain and stop; the caller holds the lock. A second call does nothing.
    fn end(self: &Arc<Self>, name: Name, record: Record) -> io::Result<()> {
        match record.phase {
            Phase::Running(run) => {
                let process = run.process.clone();
                let stopping = Record { phase: Phase::Stopping { run, since: self.now() }, ..record };
                slot::write(&self.launcher.layout.slot(&stopping.id), &stopping)?;
                process.signal(Signal::TERM)?;
                self.attach(name, &stopping);
                Ok(())
            }
            Phase::Stopping { .. } => {
                self.attach(name, &record);
                Ok(())
            }
            Phase::BackingOff { .. } | Phase::Launching => self.forget(&record),
        }
    }

    /// Records that a process is ready, and what it serves.
    pub(super) fn became_ready(
        &self,
        name: Name,
        process: &Identity,
        artifact: Option<String>,
        files: Option<FoundFiles>,
    ) -> io::Result<()> {
        let _lock = DeploymentLock::take(&self.launcher.layout, name.deployment)?;
        let Some(mut record) = self.record_of(name, process)? else { return Ok(()) };
        if let Phase::Running(run) = &mut record.phase
            && run.ready_since.is_none()
        {
            run.ready_since = Some(self.now());
            run.artifact = artifact;
            record.failure = None;
            record.files = files;
            slot::write(&self.launcher.layout.slot(&record.id), &record)?;
        }
        Ok(())
    }

    /// Records that a process has ended, unless another watcher was first. A replica that was told to stop is removed;
    /// any other one backs off.
    pub(super) fn ended(&self, name: Name, process: &Identity, end: End) -> io::Result<()> {
        let _lock = DeploymentLock::take(&self.launcher.layout, name.deployment)?;
        let Some(record) = self.record_of(name, process)? else { return Ok(()) };
        let run = match &record.phase {
            Phase::Running(run) => run,
            Phase::Stopping { .. } => return self.forget(&record),
            Phase::BackingOff { .. } | Phase::Launching => return Ok(()),
        };
        let slot = self.launcher.layout.slot(&record.id);
        let (config, now) = (&self.launcher.config, self.now());
        let failure = ending::explain(&slot, &record, run, name.revision, end);
        let reset = Duration::from_millis(config.backoff_reset_ms);
        let was_healthy = run.ready_since.is_some_and(|ready| now.since(ready) >= reset);
        let failures = if was_healthy { 1 } else { record.failures.saturating_add(1) };
        let wait = backoff::wait(config, failures, failure.permanent, rand::random());
        tracing::warn!(replica = %record.id, failures, ?wait, reason = failure.error.message, "a replica ended by itself");
        let phase = Phase::BackingOff { retry_at: now.after(wait) };
        // A replica that ends early may not have been observed before.
        let files = ending::files(&slot).or(record.files);
        slot::write(&slot, &Record { phase, failures, failure: Some(failure), files, ..record })
    }

    /// The record of the slot, if it is about this process.
    fn record_of(&self, name: Name, process: &Identity) -> io::Result<Option<Record>> {
        Ok(match slot::read(&self.launcher.layout.slot(&name.id()))? {
            Found::Record(record) if record.run().is_some_and(|run| run.process == *process) => Some(*record),
            Found::Record(_) | Found::Nothing | Found::Damaged(_) => None,
        })
    }

    /// Removes a slot whose process is gone; the caller holds the lock.
    fn forget(&self, record: &Record) -> io::Result<()> {
        let layout = &self.launcher.layout;
        let slot = layout.slot(&record.id);
        cgroup::remove(&record.groups);
        forget(&layout.socket(&record.id))?;
        log::keep(&slot, &record.id, &layout.ended(), self.now(), self.launcher.config.ended_logs())?;
        remove_slot(&slot)
    }

    /// Rotates logs that are too long.
    pub(super) fn rotate_logs(&self) -> io::Result<()> {
        for name in self.launcher.layout.names(None)? {
            log::rotate(&self.launcher.layout.slot(&name.id()), self.launcher.config.log_max_bytes)?;
        }
        Ok(())
    }

    /// Whether the last report of the replica said that it predicts.
    fn is_ready(&self, record: &Record) -> bool {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        record.run().is_some_and(|run| {
            watches.get(&record.id).is_some_and(|watch| watch.process == run.process && watch.is_ready(run))
        })
    }
}

fn fresh(name: Name, origin: Origin) -> Record {
    Record {
        id: name.id(),
        phase: Phase::Launching,
        restarts: 0,
        failures: 0,
        failure: None,
        files: None,
        groups: Vec::new(),
        memory_limit: None,
        request_timeout_ms: 0,
        notes: Vec::new(),
        origin: Some(origin),
    }
}

fn remove_slot(slot: &Path) -> io::Result<()> {
    match fs::remove_dir_all(slot) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("remove", slot, error)),
        Ok(()) => Ok(()),
    }
}

/// Refuses what processes on this machine cannot run.
fn check_runnable(revision: &Revision) -> Result<(), BackendError> {
    let reject = |reason: String| Err(BackendError::Rejected { backend: BACKEND, reason });
    if let ModelContent::Image { reference } = &revision.spec.content {
        return reject(format!(
            "it runs model files, and `{reference}` is a container image; deploy the model's files, or use a worker \
             with a container backend"
        ));
    }
    if revision.spec.machine == MachineType::Gpu && !Path::new("/dev/nvidia0").exists() {
        return reject(
            "`type` is gpu, and this machine has no GPU (/dev/nvidia0); use cpu, or run a worker on a machine with one"
                .to_owned(),
        );
    }
    Ok(())
}
