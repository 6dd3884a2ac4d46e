//! A data directory for a test, with everything in it ended when the test is over.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{DeploymentId, Fence, ReplicaId, Revision, RevisionNumber, replica::ReplicaState};
use async_trait::async_trait;
use base::{Clock, Tasks};
use futures::StreamExt;
use modelway_backend::{
    Backend, Replica, conformance,
    process::{Config, ProcessBackend},
};
use rustix::process::{Pid, Signal, kill_process};

/// The deployment of most tests.
pub(crate) const ONE: DeploymentId = DeploymentId(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// One data directory and the backends that were opened on it.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    config: Config,
    tasks: Mutex<Vec<Tasks>>,
}

/// The settings of most tests: short waits.
pub(crate) fn settings(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        executable: Some(example("stub_replica")),
        drain_ms: 50,
        backoff_base_ms: 20,
        backoff_cap_ms: 200,
        ..Config::default()
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = settings(dir.path());
        change(&mut config);
        Self { dir, config, tasks: Mutex::default() }
    }

    /// Opens a backend, as a new worker would.
    pub(crate) async fn open(&self) -> ProcessBackend {
        let tasks = Tasks::new();
        self.tasks.lock().unwrap().push(tasks.clone());
        ProcessBackend::open(self.config.clone(), tasks, Clock::system()).await.unwrap()
    }

    /// Stops everything that the backends opened so far do by themselves, as the death of their worker would.
    pub(crate) async fn abandon(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        for tasks in tasks {
            assert!(tasks.stop_and_wait(PATIENCE).await);
        }
    }

    /// Asks for replicas until so many are ready.
    pub(crate) async fn ready(&self, backend: &ProcessBackend, wanted: &Revision, want: u32) -> Vec<Replica> {
        let seen = async || backend.observe(wanted.deployment).await.unwrap();
        eventually("readiness", async || {
            // A stale fence would be refused; the newest one is kept on disk.
            backend.ensure(wanted, want, &[], &self.fence(wanted.deployment)).await.unwrap();
            let seen = seen().await;
            seen.len() == want as usize && seen.iter().all(|replica| replica.state == ReplicaState::Ready)
        })
        .await;
        seen().await
    }

    fn fence(&self, deployment: DeploymentId) -> Fence {
        let text = fs::read_to_string(self.replicas().join(format!("{deployment}.lock"))).unwrap_or_default();
        let number = text.lines().find_map(|line| line.split_once(' ')?.0.parse().ok());
        conformance::fence(number.unwrap_or(1))
    }

    pub(crate) fn replicas(&self) -> PathBuf {
        self.dir.path().join("replicas")
    }

    fn record(&self, replica: &ReplicaId) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.replicas().join(&replica.0).join("replica.json")).unwrap()).unwrap()
    }

    pub(crate) fn edit_record(&self, replica: &ReplicaId, change: impl FnOnce(&mut serde_json::Value)) {
        let mut record = self.record(replica);
        change(&mut record);
        fs::write(self.replicas().join(&replica.0).join("replica.json"), record.to_string()).unwrap();
    }

    pub(crate) fn pid(&self, replica: &ReplicaId) -> u32 {
        self.record(replica)["process"]["pid"].as_u64().unwrap().try_into().unwrap()
    }

    pub(crate) fn groups(&self, replica: &ReplicaId) -> Vec<PathBuf> {
        serde_json::from_value(self.record(replica)["groups"].clone()).unwrap()
    }

    /// Kills a replica from outside.
    pub(crate) fn kill(&self, replica: &ReplicaId) {
        let pid = self.pid(replica);
        kill_process(number(pid), Signal::KILL).unwrap();
        while alive(pid) {
            std::thread::yield_now();
        }
    }

    /// A process of its own that starts and ends replicas without pause.
    pub(crate) fn mortal_worker(&self, fence: u32) -> std::process::Child {
        let mut worker = std::process::Command::new(example("mortal_worker"));
        worker.arg(self.dir.path()).arg(example("stub_replica")).arg(fence.to_string());
        worker.stderr(std::process::Stdio::null()).spawn().unwrap()
    }

    /// The whole log that a backend shows of a replica.
    pub(crate) async fn log(&self, backend: &ProcessBackend, replica: &ReplicaId) -> String {
        let log = backend.logs(replica, 1_000, false).await.unwrap().expect("it is known");
        let chunks: Vec<_> = log.map(Result::unwrap).collect().await;
        String::from_utf8(chunks.concat()).unwrap()
    }

    /// The processes that belong to this data directory.
    pub(crate) fn strays(&self) -> Vec<u32> {
        let dir = self.dir.path().to_str().unwrap().to_owned();
        let mut found: Vec<u32> = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(&dir)))
            .collect();
        found.sort_unstable();
        found
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for tasks in self.tasks.lock().unwrap().drain(..) {
            tasks.stop();
        }
        for pid in self.strays() {
            let _ = kill_process(number(pid), Signal::KILL);
        }
    }
}

#[async_trait]
impl conformance::Place for Home {
    async fn open(&self) -> Arc<dyn Backend> {
        Arc::new(Self::open(self).await)
    }

    fn revision(&self, deployment: DeploymentId, number: RevisionNumber) -> Revision {
        revision(deployment, number.0, "")
    }

    fn broken(&self, deployment: DeploymentId, number: RevisionNumber) -> Revision {
        revision(deployment, number.0, "crashes")
    }
}

/// A revision whose replicas behave so; see the stub.
pub(crate) fn revision(deployment: DeploymentId, number: u32, behaviour: &str) -> Revision {
    let mut revision = conformance::revision(deployment, RevisionNumber(number), "file:///model");
    revision.spec.env.insert("STUB".to_owned(), behaviour.to_owned());
    revision
}

/// Whether a process runs; a zombie does not.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn number(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// A program of this crate's examples, which are built beside its tests.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing; run cargo build --examples -p modelway-backend", program.display());
    program
}
