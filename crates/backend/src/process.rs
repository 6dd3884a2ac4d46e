//! Replicas as processes on this machine: `modelway serve`, each in its own process group.
//!
//! The state is on disk and in the kernel, never in this process alone. Each replica has a folder with a record
//! ([`slot`]), which changes only under the lock of its deployment. Its process is identified reliably ([`identity`]),
//! and a watcher observes it ([`watch`]). So a new backend finds everything that an earlier one left, several backends
//! can share one data directory, and after `kill -9` at any moment no replica is unknown and none is doubled.
//!
//! **Invariant:** a process is never touched unless it is proved to be a replica of this data directory.

mod backoff;
mod cgroup;
mod config;
mod ending;
mod failure;
mod fence;
mod identity;
mod launch;
mod layout;
mod live;
mod log;
mod pidfd;
mod probe;
mod secrets;
mod slot;
mod supervisor;
mod watch;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use api::{
    DeploymentId, Epoch, Fence, ReplicaId, Revision, RevisionNumber, Timestamp,
    replica::{Address, ReplicaState},
};
use async_trait::async_trait;
use base::{Clock, Tasks};
use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream::BoxStream};
use tokio::{
    sync::broadcast,
    time::{sleep, timeout},
};

pub use config::Config;

use self::{
    cgroup::Limiter,
    ending::End,
    failure::{BACKEND, unavailable},
    identity::{Exit, Identity},
    launch::Launcher,
    layout::{Layout, Name},
    log::{Follower, Step},
    pidfd::Pidfd,
    slot::{Phase, Record},
    supervisor::Supervisor,
};
use crate::{Backend, BackendError, Capabilities, Failure, Replica, Restarts};

/// How many changes a slow listener may lag behind before it must check everything.
const CHANGES: usize = 1_024;
/// How long an observation waits for the first report of unknown replicas.
const FIRST_WORD: Duration = Duration::from_millis(1_500);
/// Interval of reading a followed log. Nothing is read while nobody follows.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);
/// How long the kernel may take to end a killed process.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// Runs replicas as processes of this machine.
#[derive(Clone, Debug)]
pub struct ProcessBackend(Arc<Supervisor>);

impl ProcessBackend {
    /// Opens a data directory and adopts the replicas that run there. Replicas outlive the backend: only
    /// [`Backend::shutdown`] ends them.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] if the data directory cannot be used, with the file and the reason.
    pub async fn open(config: Config, tasks: Tasks, clock: Clock) -> Result<Self, BackendError> {
        let supervisor = {
            let tasks = tasks.clone();
            let opened = tasks.clone().spawn_blocking(move || open(config, tasks, clock));
            opened.await.map_err(unavailable)?.map_err(unavailable)?
        };
        let backend = Self(supervisor);
        backend.first_words().await;
        tasks.spawn(backend.clone().rotate_logs());
        Ok(backend)
    }

    /// Runs something on a thread that may block.
    async fn blocking<T: Send + 'static, E: Into<BackendError> + Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Supervisor>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, BackendError> {
        let supervisor = Arc::clone(&self.0);
        self.0.tasks.spawn_blocking(move || work(&supervisor)).await.map_err(unavailable)?.map_err(Into::into)
    }

    async fn records(&self, only: Option<DeploymentId>) -> Result<Vec<(Name, Record)>, BackendError> {
        self.blocking(move |supervisor| supervisor.records(only).map_err(unavailable)).await
    }

    /// Waits until each watcher has tried to reach its replica.
    async fn first_words(&self) {
        let waits: Vec<_> = {
            let watches = self.0.watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.values().map(live::Watch::tried).collect()
        };
        // For late watchers, the record is used.
        let _ = timeout(FIRST_WORD, join_all(waits)).await;
    }

    async fn look(&self, only: Option<DeploymentId>) -> Result<Vec<Replica>, BackendError> {
        let mut records = self.records(only).await?;
        let unknown = records.iter().filter(|(name, record)| self.0.attach(*name, record)).count();
        if unknown > 0 {
            self.first_words().await;
            records = self.records(only).await?;
        }
        Ok(records.into_iter().map(|(name, record)| self.replica(name, record)).collect())
    }

    /// A record, with what its watcher knows.
    fn replica(&self, name: Name, record: Record) -> Replica {
        let run = record.run().cloned();
        let watches = self.0.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = run.as_ref().and_then(|run| watches.get(&record.id).filter(|watch| watch.process == run.process));
        let live = watch.map(live::Watch::live).unwrap_or_default();
        let is_ready =
            run.as_ref().is_some_and(|run| watch.map_or_else(|| run.was_ready(), |watch| watch.is_ready(run)));
        let (state, retry_at) = match record.phase {
            Phase::Stopping { .. } => (ReplicaState::Stopping, None),
            Phase::BackingOff { retry_at } => (ReplicaState::BackingOff, Some(retry_at)),
            Phase::Running(_) if is_ready => (ReplicaState::Ready, None),
            Phase::Running(_) if live.state == Some(ReplicaState::Stopping) => (ReplicaState::Stopping, None),
            Phase::Running(_) | Phase::Launching => (ReplicaState::Starting, None),
        };
        let failure = record.failure.filter(|_| !is_ready);
        Replica {
            deployment: name.deployment,
            revision: name.revision,
            state,
            address: Some(Address::Unix(self.0.launcher.layout.socket(&record.id))),
            started_at: run.as_ref().map(|run| run.started_at),
            restarts: record.restarts,
            failure: failure.map(|failure| Failure { error: failure.error, permanent: failure.permanent }),
            retry_at,
            artifact: live.artifact.or(run.and_then(|run| run.artifact)),
            files: live.files.or(record.files),
            notes: record.notes,
            origin: record.origin,
            id: record.id,
        }
    }

    async fn rotate_logs(self) {
        let pause = Duration::from_millis(self.0.launcher.config.log_check_ms);
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.0.tasks.stopping() => return,
            }
            if let Err(error) = self.blocking(|supervisor| supervisor.rotate_logs().map_err(unavailable)).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "logs cannot be rotated");
            }
        }
    }
}

fn open(config: Config, tasks: Tasks, clock: Clock) -> io::Result<Arc<Supervisor>> {
    if config.data_dir.as_os_str().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "process.data_dir is not set; give --data-dir"));
    }
    let layout = Layout::open(&config.data_dir)?;
    let launcher = Launcher {
        program: config.executable.clone().unwrap_or_else(launch::own_program),
        me: Identity::of(std::process::id()),
        limiter: Limiter::new(&layout.node),
        layout,
        config,
    };
    let supervisor = Arc::new(Supervisor {
        launcher,
        tasks,
        clock,
        watches: Mutex::new(HashMap::new()),
        changes: broadcast::channel(CHANGES).0,
        closed: AtomicBool::new(false),
    });
    supervisor.adopt()?;
    Ok(supervisor)
}

#[async_trait]
impl Backend for ProcessBackend {
    fn scope(&self) -> String {
        format!("{BACKEND}:{}", self.0.launcher.layout.node)
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
        let (revision, retire, fence) = (revision.clone(), retire.to_vec(), fence.clone());
        self.blocking(move |supervisor| supervisor.ensure(&revision, want, &retire, &fence)).await
    }

    async fn take_over(
        &self,
        deployment: DeploymentId,
        replicas: &[(ReplicaId, Timestamp)],
        fence: &Fence,
    ) -> Result<(), BackendError> {
        let (replicas, fence) = (replicas.to_vec(), fence.clone());
        self.blocking(move |supervisor| supervisor.take_over(deployment, &replicas, &fence)).await
    }

    async fn observe(&self, deployment: DeploymentId) -> Result<Vec<Replica>, BackendError> {
        self.look(Some(deployment)).await
    }

    async fn observe_all(&self) -> Result<Vec<Replica>, BackendError> {
        self.look(None).await
    }

    async fn remove(
        &self,
        deployment: DeploymentId,
        revision: Option<RevisionNumber>,
        fence: &Fence,
    ) -> Result<(), BackendError> {
        let fence = fence.clone();
        self.blocking(move |supervisor| supervisor.remove(deployment, revision, &fence)).await
    }

    async fn revive(&self, deployment: DeploymentId, epoch: &Epoch) -> Result<Option<Timestamp>, BackendError> {
        let epoch = epoch.clone();
        self.blocking(move |supervisor| supervisor.revive(deployment, &epoch).map_err(unavailable)).await
    }

    async fn end_stray(&self, replica: &ReplicaId, ours: &Epoch) -> Result<(), BackendError> {
        let Some(name) = Name::parse(&replica.0) else { return Ok(()) };
        let ours = ours.clone();
        self.blocking(move |supervisor| supervisor.end_stray(name, &ours).map_err(unavailable)).await
    }

    fn changes(&self) -> BoxStream<'static, DeploymentId> {
        let mut changes = self.0.changes.subscribe();
        let backend = self.clone();
        Box::pin(async_stream::stream! {
            loop {
                match changes.recv().await {
                    Ok(deployment) => yield deployment,
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        // It is unknown which changes were missed, so any deployment may have changed.
                        let mut all: Vec<_> = match backend.records(None).await {
                            Ok(records) => records.into_iter().map(|(name, _)| name.deployment).collect(),
                            Err(_) => Vec::new(),
                        };
                        all.dedup();
                        for deployment in all {
                            yield deployment;
                        }
                    }
                    Err(broadcast::error::RecvError::Closed) => break,
                }
            }
        })
    }

    async fn logs(
        &self,
        replica: &ReplicaId,
        tail: usize,
        follow: bool,
    ) -> Result<Option<BoxStream<'static, io::Result<Bytes>>>, BackendError> {
        let Some(name) = Name::parse(&replica.0) else { return Ok(None) };
        let opened = self
            .blocking(move |supervisor| open_log(supervisor, &name.id(), tail, follow).map_err(unavailable))
            .await?;
        let Some((text, follower)) = opened else { return Ok(None) };
        let shown = futures::stream::iter((!text.is_empty()).then(|| Ok(Bytes::from(text))));
        Ok(Some(match follower {
            Some(follower) => Box::pin(shown.chain(grow(follower, self.0.tasks.clone()))),
            None => Box::pin(shown),
        }))
    }

    async fn shutdown(&self, patience: Duration, epoch: &Epoch) -> Result<(), BackendError> {
        let epoch = epoch.clone();
        let processes = self.blocking(move |supervisor| supervisor.close(&epoch).map_err(unavailable)).await?;
        if !all_end(&processes, patience).await? {
            tracing::warn!(?patience, "replicas that have not ended in time are killed");
        }
        for (name, process) in &processes {
            process.kill_group(&self.0.launcher.mark(&name.id())).map_err(unavailable)?;
        }
        all_end(&processes, AFTER_KILL).await?;
        self.blocking(move |supervisor| {
            let mut left = Vec::new();
            for (name, process) in &processes {
                if process.is_alive() {
                    left.push(format!("{} (process {})", name.id(), process.pid));
                    continue;
                }
                process.reap();
                supervisor.ended(*name, process, End::Exited(Exit::Unknown)).map_err(unavailable)?;
            }
            if left.is_empty() {
                return Ok(());
            }
            Err(unavailable(format!("the kernel has not ended {} yet", left.join(", "))))
        })
        .await
    }
}

/// Waits until all of these have ended, at most `patience`. Returns whether they have.
async fn all_end(processes: &[(Name, Identity)], patience: Duration) -> Result<bool, BackendError> {
    let mut pidfds = Vec::new();
    for (_, process) in processes {
        pidfds.extend(process.watch().map_err(unavailable)?);
    }
    Ok(timeout(patience, join_all(pidfds.iter().map(Pidfd::ended))).await.is_ok())
}

type OpenedLog = (Vec<u8>, Option<Follower>);

fn open_log(supervisor: &Supervisor, replica: &ReplicaId, lines: usize, follow: bool) -> io::Result<Option<OpenedLog>> {
    let layout = &supervisor.launcher.layout;
    let slot = layout.slot(replica);
    match log::tail(&slot, lines) {
        Ok((text, end)) => {
            let follower = follow.then(|| Follower::open(&slot, end)).transpose()?;
            Ok(Some((text, follower)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let kept = log::kept_of(&layout.ended(), replica)?;
            kept.map(|path| Ok((log::tail_of_file(&path, lines)?, None))).transpose()
        }
        Err(error) => Err(error),
    }
}

/// New output of a log, until its replica is gone.
fn grow(mut follower: Follower, tasks: Tasks) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    async_stream::stream! {
        loop {
            let reading = tasks.spawn_blocking(move || {
                let step = follower.step();
                (follower, step)
            });
            let step = match reading.await {
                Ok((back, step)) => {
                    follower = back;
                    step
                }
                Err(error) => {
                    yield Err(io::Error::other(error));
                    break;
                }
            };
            match step {
                Ok(Step::Grown(text)) => yield Ok(text),
                Ok(Step::Ended) => break,
                Ok(Step::Quiet) => tokio::select! {
                    () = sleep(FOLLOW_PAUSE) => {}
                    () = tasks.stopping() => break,
                },
                Err(error) => {
                    yield Err(error);
                    break;
                }
            }
        }
    }
}
