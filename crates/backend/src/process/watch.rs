//! Watches one process of one replica: requests its reports, and notices when it ends.
//!
//! A healthy replica is not polled: its readiness comes from a request that it answers when its state changes, its end
//! from a pidfd. A replica that once answered and then sends no report for a long time is killed, because nobody else
//! can detect that it hangs.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use api::{DeploymentId, Timestamp, replica::ReplicaState};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    ending::End,
    identity::Exit,
    layout::Name,
    live::{Live, Watch},
    probe::{ProbeError, report},
    slot::{Record, Run},
    supervisor::Supervisor,
};

/// Timeout of a request that the replica answers at once.
const ANSWER: Duration = Duration::from_secs(1);
/// Timeout of a request for which the replica waits for a change (30 s at most).
const CHANGE: Duration = Duration::from_secs(45);
/// The delay between attempts to reach a replica grows from the first to the second value, and to the third once it has
/// been reached.
const PAUSES: [Duration; 3] = [Duration::from_millis(5), Duration::from_millis(100), Duration::from_secs(1)];
/// After this many consecutive refused attempts, a ready replica is no longer ready.
const REFUSALS: u32 = 3;
/// How long another worker has to record how its own child ended, because only it knows.
const PARENT_FIRST: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Makes sure that the process of a record is watched. Returns whether it was not watched before.
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
        // The record may have been read some time ago: a running process is the newer one.
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
    /// Its running requests may take this time to finish.
    request_timeout: Duration,
    socket: PathBuf,
    live: watch::Sender<Live>,
}

impl Watcher {
    async fn watch(self, stop: watch::Receiver<Option<Timestamp>>) {
        let pidfd = match self.run.process.watch() {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // The next observation of this replica tries again.
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
        // Its children first: while it is our zombie, no other process can have its pid.
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
            // The record still contains the dead process, so the next observation retries this.
            tracing::error!(replica = %self.name.id(), %error, "the end of a replica cannot be written down");
            sleep(ANSWER).await;
        }
        self.detach();
    }

    /// Stops watching; waiting callers learn that there will be no report.
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

    /// Resolves when a process that was told to stop has used up its time.
    async fn overdue(&self, mut stop: watch::Receiver<Option<Timestamp>>) {
        // The sender exists as long as this watcher's entry; without it nobody can tell the process to stop.
        let Ok(since) = stop.wait_for(Option::is_some).await.map(|since| *since) else {
            return std::future::pending().await;
        };
        let config = &self.supervisor.launcher.config;
        let due = self.request_timeout + Duration::from_millis(config.drain_ms.saturating_add(config.kill_after_ms));
        let passed = since.map_or(Duration::ZERO, |since| self.supervisor.now().since(since));
        sleep(due.saturating_sub(passed)).await;
    }

    /// Requests reports in a loop. Returns when there was no report for too long, with that time.
    async fn converse(&self) -> Duration {
        let patience = Duration::from_millis(self.supervisor.launcher.config.unresponsive_ms);
        // A replica that was ready under our predecessor must answer from the start.
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
                        // The next change is its end, so a request that waits for a change would only delay it.
                        seq = None;
                        sleep(ANSWER).await;
                    } else if !news && asked.elapsed() < ANSWER {
                        // If a replica wrongly does not wait for a change, this loop must not spin.
                        sleep(ANSWER).await;
                    }
                    continue;
                }
                Ok(stranger) => {
                    tracing::debug!(replica = %self.name.id(), ?stranger, "another process answers on the socket");
                    refusals += 1;
                }
                // Its wait may only have been longer than our timeout: request a report that needs no wait.
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

    /// Handles a report: first stores it on disk, then publishes it.
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
