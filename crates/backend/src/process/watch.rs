//! Follows one life of one replica: asks it how it is, and notices when it ends.
//!
//! Nothing polls a replica that is well: its readiness comes by a request that it answers when something
//! changes, its end by a pidfd. A replica that once answered and then is silent for long is killed, for
//! nobody else can tell that it hangs.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use api::{
    DeploymentId, Timestamp,
    replica::{ReplicaState, SelfReport},
    revision::FoundFiles,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    ending::End,
    identity::{Exit, Identity},
    layout::Name,
    probe::{ProbeError, report},
    slot::{Record, Run},
    supervisor::Supervisor,
};

/// How long a replica may take to answer a question that needs no waiting.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a replica may take to answer when it waits for a change (30 s at most) before.
const CHANGE: Duration = Duration::from_secs(45);
/// The pause between attempts to reach a replica grows from the first to the second, and to the third once
/// it has been reached.
const PAUSES: [Duration; 3] = [Duration::from_millis(5), Duration::from_millis(100), Duration::from_secs(1)];
/// So many refused attempts in a row and a replica that was ready no longer is.
const REFUSALS: u32 = 3;
/// How long another worker has to write down how its own child ended, for only it knows.
const PARENT_FIRST: Duration = Duration::from_secs(1);

/// A process that is being followed.
#[derive(Debug)]
pub(super) struct Watch {
    /// Which one.
    pub(super) process: Identity,
    live: watch::Receiver<Live>,
    stop: watch::Sender<Option<Timestamp>>,
}

/// What is known of a process beyond its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// Whether it was tried to reach it at all.
    tried: bool,
    /// Its own last word; `None` if it has not said one to this process.
    pub(super) state: Option<ReplicaState>,
    /// The artefact that it serves.
    pub(super) artifact: Option<String>,
    /// The files of that.
    pub(super) files: Option<FoundFiles>,
}

impl Live {
    /// What a process's own report says.
    fn of(report: SelfReport) -> Self {
        Self { tried: true, state: Some(report.state), artifact: report.artifact, files: report.files }
    }

    /// What is known of a process that does not answer.
    fn unheard() -> Self {
        Self { tried: true, state: Some(ReplicaState::Starting), artifact: None, files: None }
    }
}

impl Watch {
    /// What is known now.
    pub(super) fn live(&self) -> Live {
        self.live.borrow().clone()
    }

    /// Whether the process predicts. Before it has spoken to us, what it told our predecessor holds.
    pub(super) fn is_ready(&self, run: &Run) -> bool {
        match self.live.borrow().state {
            Some(state) => state == ReplicaState::Ready,
            None => run.was_ready(),
        }
    }

    /// Resolves once it was tried to reach the process, or it is gone.
    pub(super) fn tried(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut live = self.live.clone();
        async move {
            // An error means that the watcher has ended: there is nothing left to wait for.
            let _ = live.wait_for(|live| live.tried).await;
        }
    }
}

impl Supervisor {
    /// Makes sure that a record's process is followed. Says whether it was not before.
    pub(super) fn attach(self: &Arc<Self>, name: Name, record: &Record) -> bool {
        let Some(run) = record.run() else { return false };
        if self.tasks.is_stopping() {
            return false;
        }
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = watches.get(&record.id)
            && watch.process == run.process
        {
            watch.stop.send_if_modified(|stop| {
                let changed = *stop != record.stopping_since();
                *stop = record.stopping_since();
                changed
            });
            return false;
        }
        // The record may have been read a while ago: a process that runs is the newer one.
        if watches.get(&record.id).is_some_and(|watch| watch.process.is_alive()) {
            return false;
        }
        let (live_out, live) = watch::channel(Live::default());
        let (stop, stop_in) = watch::channel(record.stopping_since());
        watches.insert(record.id.clone(), Watch { process: run.process.clone(), live, stop });
        let watcher = Watcher {
            supervisor: Arc::clone(self),
            name,
            run: run.clone(),
            request_timeout: Duration::from_millis(record.request_timeout_ms),
            socket: self.launcher.layout.socket(&record.id),
            live: live_out,
        };
        self.tasks.spawn(watcher.watch(stop_in));
        true
    }
}

struct Watcher {
    supervisor: Arc<Supervisor>,
    name: Name,
    run: Run,
    /// What it has begun may take so long to end.
    request_timeout: Duration,
    socket: PathBuf,
    live: watch::Sender<Live>,
}

impl Watcher {
    async fn watch(self, stop: watch::Receiver<Option<Timestamp>>) {
        let pidfd = match self.run.process.watch() {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // The next look at this replica tries again.
                tracing::error!(replica = %self.name.id(), %error, "a replica cannot be watched");
                return self.detach();
            }
        };
        let mut silent = None;
        if let Some(pidfd) = pidfd {
            tokio::select! {
                () = pidfd.ended() => {}
                silence = self.converse() => {
                    silent = Some(silence);
                    self.kill();
                    pidfd.ended().await;
                }
                () = self.overdue(stop) => {
                    tracing::warn!(replica = %self.name.id(), "a replica did not end when told to and is killed");
                    self.kill();
                    pidfd.ended().await;
                }
                () = self.supervisor.tasks.stopping() => return self.detach(),
            }
        }
        self.live.send_replace(Live { tried: false, ..Live::unheard() });
        // Its children first: while it is a zombie of ours, nobody else can have its number.
        self.kill();
        let exit = self.run.process.reap();
        let launcher_is_another = self
            .run
            .launcher
            .as_ref()
            .is_some_and(|it| Some(it) != self.supervisor.launcher.me.as_ref() && it.is_alive());
        if exit == Exit::Unknown && launcher_is_another {
            sleep(PARENT_FIRST).await;
        }
        let end = silent.map_or(End::Exited(exit), End::Silent);
        let (supervisor, name, process) = (Arc::clone(&self.supervisor), self.name, self.run.process.clone());
        let written = self.supervisor.tasks.spawn_blocking(move || supervisor.ended(name, &process, end)).await;
        if let Ok(Err(error)) = written {
            // The record still names the dead process, so the next look at it comes here again.
            tracing::error!(replica = %self.name.id(), %error, "the end of a replica cannot be written down");
            sleep(ANSWER).await;
        }
        self.detach();
    }

    /// Stops watching; whoever waits for a word is told that there will be none.
    fn detach(self) {
        let mut watches = self.supervisor.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if watches.get(&self.name.id()).is_some_and(|watch| watch.process == self.run.process) {
            watches.remove(&self.name.id());
        }
        drop(watches);
        self.supervisor.changed(self.deployment());
    }

    fn deployment(&self) -> DeploymentId {
        self.name.deployment
    }

    fn kill(&self) {
        let mark = self.supervisor.launcher.mark(&self.name.id());
        if let Err(error) = self.run.process.kill_group(&mark) {
            tracing::error!(replica = %self.name.id(), %error, "a replica's processes cannot be killed");
        }
    }

    /// Resolves when a process that was told to end has had its time.
    async fn overdue(&self, mut stop: watch::Receiver<Option<Timestamp>>) {
        // The sender lives as long as this watcher's entry; without it nobody can tell the process to end.
        let Ok(since) = stop.wait_for(Option::is_some).await.map(|since| *since) else {
            return std::future::pending().await;
        };
        let config = &self.supervisor.launcher.config;
        let due = self.request_timeout + Duration::from_millis(config.drain_ms.saturating_add(config.kill_after_ms));
        let passed = since.map_or(Duration::ZERO, |since| self.supervisor.now().since(since));
        sleep(due.saturating_sub(passed)).await;
    }

    /// Asks the process how it is, again and again. Returns when it has been silent for too long, and for
    /// how long that was.
    async fn converse(&self) -> Duration {
        let patience = Duration::from_millis(self.supervisor.launcher.config.unresponsive_ms);
        // One that was ready under our predecessor owes us an answer from the start.
        let mut heard = self.run.ready_since.map(|_| Instant::now());
        let (mut seq, mut pause, mut refusals) = (None, PAUSES[0], 0);
        loop {
            let asked = Instant::now();
            let answer = report(&self.socket, seq, if seq.is_some() { CHANGE.min(patience) } else { ANSWER }).await;
            match answer {
                Ok(report) if report.pid == self.run.process.pid && report.replica == Some(self.name.id()) => {
                    let news = seq != Some(report.seq);
                    (heard, seq, pause, refusals) = (Some(Instant::now()), Some(report.seq), PAUSES[0], 0);
                    let state = report.state;
                    self.learn(Live::of(report)).await;
                    if state == ReplicaState::Stopping {
                        // Its last change is its end: a question that waits for another would only delay it.
                        seq = None;
                        sleep(ANSWER).await;
                    } else if !news && asked.elapsed() < ANSWER {
                        // A replica that does not wait for a change, as it should, must not make us spin.
                        sleep(ANSWER).await;
                    }
                    continue;
                }
                Ok(stranger) => {
                    tracing::debug!(replica = %self.name.id(), ?stranger, "another process answers on the socket");
                    refusals += 1;
                }
                // It may only have waited for longer than we did: ask once more, for an answer at once.
                Err(ProbeError::Silent(_)) if seq.take().is_some() => continue,
                Err(ProbeError::Silent(_)) => {}
                Err(ProbeError::Absent(_) | ProbeError::Garbled(_)) => refusals += 1,
            }
            seq = None;
            match heard {
                Some(heard) if heard.elapsed() >= patience => return heard.elapsed(),
                Some(_) if refusals < REFUSALS => self.tried(),
                None if refusals == 0 => self.tried(),
                Some(_) | None => self.learn(Live::unheard()).await,
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(if heard.is_some() { PAUSES[2] } else { PAUSES[1] });
        }
    }

    fn tried(&self) {
        self.live.send_if_modified(|live| !std::mem::replace(&mut live.tried, true));
    }

    /// Takes note of a process's word: first on disk, then for everybody.
    async fn learn(&self, live: Live) {
        if *self.live.borrow() == live {
            return;
        }
        if live.state == Some(ReplicaState::Ready) && self.run.ready_since.is_none() {
            let (supervisor, name, process) = (Arc::clone(&self.supervisor), self.name, self.run.process.clone());
            let (artifact, files) = (live.artifact.clone(), live.files.clone());
            let writing = move || supervisor.became_ready(name, &process, artifact, files);
            let written = self.supervisor.tasks.spawn_blocking(writing).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(replica = %self.name.id(), %error, "that a replica is ready cannot be written down");
            }
        }
        self.live.send_replace(live);
        self.supervisor.changed(self.deployment());
    }
}
