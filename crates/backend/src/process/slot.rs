//! What the disk remembers of one replica, and the lock under which it changes.
//!
//! A slot is a folder with the record of a replica, its log and its last words. The record is replaced as a
//! whole, and always says what is about to be done before it is done: a process is started only from a slot
//! that says [`Phase::Launching`], so that whoever comes after a crash knows that one may be running, and
//! finds it by its arguments.
//!
//! **Invariant:** a record changes only under its deployment's [`DeploymentLock`], and only by a caller whose
//! fence was not older than the newest one seen, or because the replica's process itself changed.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use api::{ReplicaId, Timestamp, deployment::StatusError, revision::FoundFiles};
use serde::{Deserialize, Serialize};

use super::{
    identity::Identity,
    layout::{Layout, Name, at},
};
use crate::BackendError;

const RECORD: &str = "replica.json";
/// How long to wait for a lock, and for how long between two attempts.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// One replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its name.
    pub(super) id: ReplicaId,
    /// Where it stands.
    #[serde(flatten)]
    pub(super) phase: Phase,
    /// How often it was started again.
    pub(super) restarts: u32,
    /// How often in a row it ended by itself; long health makes it zero.
    pub(super) failures: u32,
    /// How its last process ended, until a later one is ready.
    pub(super) failure: Option<LastFailure>,
    /// The files that its processes found.
    #[serde(default)]
    pub(super) files: Option<FoundFiles>,
    /// Control groups that its processes live in.
    pub(super) groups: Vec<PathBuf>,
    /// The limit of memory, as the user wrote it.
    pub(super) memory_limit: Option<String>,
    /// How long its requests may take, in milliseconds.
    #[serde(default)]
    pub(super) request_timeout_ms: u64,
    /// What a user should know.
    pub(super) notes: Vec<String>,
}

/// Where a replica stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(super) enum Phase {
    /// A process is about to be started, or was and its number is not written down yet.
    Launching,
    /// It has a process.
    Running(Run),
    /// It has a process that was told to end.
    Stopping {
        /// The process.
        run: Run,
        /// When it was told.
        since: Timestamp,
    },
    /// Its process ended by itself.
    BackingOff {
        /// When it may be started again.
        retry_at: Timestamp,
    },
}

/// One life of a replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// The process.
    pub(super) process: Identity,
    /// Its parent: the one who learns how it ends.
    pub(super) launcher: Option<Identity>,
    /// When it was started.
    pub(super) started_at: Timestamp,
    /// When it was first ready.
    pub(super) ready_since: Option<Timestamp>,
    /// What it served then.
    pub(super) artifact: Option<String>,
    /// Where in the log its lines begin.
    pub(super) log_from: u64,
    /// The groups' count of processes killed for want of memory, before.
    pub(super) oom_kills_before: u64,
}

/// How a replica ended by itself, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LastFailure {
    /// What happened.
    pub(super) error: StatusError,
    /// Whether a person must change something.
    pub(super) permanent: bool,
}

impl Run {
    /// Whether it was ready when somebody last asked, and has not ended since.
    pub(super) fn was_ready(&self) -> bool {
        self.ready_since.is_some() && self.process.is_alive()
    }
}

impl Record {
    /// The process that it has, if any.
    pub(super) fn run(&self) -> Option<&Run> {
        match &self.phase {
            Phase::Running(run) | Phase::Stopping { run, .. } => Some(run),
            Phase::Launching | Phase::BackingOff { .. } => None,
        }
    }

    /// Whether it was told to end.
    pub(super) fn stopping_since(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Stopping { since, .. } => Some(*since),
            Phase::Running(_) | Phase::Launching | Phase::BackingOff { .. } => None,
        }
    }
}

/// What was found in a slot.
#[derive(Debug)]
pub(super) enum Found {
    /// A record.
    Record(Box<Record>),
    /// A folder whose record was never written, or is gone.
    Nothing,
    /// A record that cannot be read, and why.
    Damaged(String),
}

/// Reads a slot's record.
pub(super) fn read(slot: &Path) -> io::Result<Found> {
    let path = slot.join(RECORD);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(at("read", &path, error)),
    };
    Ok(match serde_json::from_slice(&text) {
        Ok(record) => Found::Record(Box::new(record)),
        Err(error) => Found::Damaged(error.to_string()),
    })
}

/// Replaces a slot's record as a whole; makes the slot if it is missing.
pub(super) fn write(slot: &Path, record: &Record) -> io::Result<()> {
    match fs::create_dir(slot) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at("create", slot, error)),
    }
    let path = slot.join(RECORD);
    let fresh = slot.join("replica.json.new");
    let text = serde_json::to_vec_pretty(record)?;
    let written = base::private::create(&fresh)
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| fs::rename(&fresh, &path));
    written.map_err(|error| at("write", &path, error))
}

/// The right to change one deployment's replicas, held against every process of the data directory. It is
/// released when dropped, and by the kernel when its holder dies.
///
/// A child shares it from its birth until it runs its own program. So whoever gets the lock after a crash
/// sees either no child, or one whose arguments can be read.
#[derive(Debug)]
pub(super) struct DeploymentLock(File);

impl DeploymentLock {
    /// Waits for the lock, which is held for no longer than it takes to start processes: somebody who holds
    /// it for longer hangs, and must not make everybody else hang too.
    pub(super) fn take(layout: &Layout, deployment: api::DeploymentId) -> io::Result<Self> {
        let path = layout.lock(deployment);
        let begun = Instant::now();
        loop {
            let file = base::private::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|error| at("open", &path, error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_PAUSE);
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    let held = io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("another process has held it for {LOCK_PATIENCE:?}; `fuser` names it"),
                    );
                    return Err(at("lock", &path, held));
                }
                Err(TryLockError::Error(error)) => return Err(at("lock", &path, error)),
            }
            // It may have been tidied away between the opening and the locking.
            let ours = file.metadata()?.ino();
            match fs::metadata(&path) {
                Ok(found) if found.ino() == ours => return Ok(Self(file)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at("inspect", &path, error)),
            }
        }
    }

    /// Refuses a fence that is older than the newest one seen, else remembers it.
    pub(super) fn check(&mut self, given: i64) -> Result<(), BackendError> {
        let newest = self.newest().map_err(super::unavailable)?;
        if given < newest {
            return Err(BackendError::Fenced { given, newest });
        }
        if given > newest {
            // Always as long as before, so that no crash can leave half a number.
            let text = format!("{given:020}\n");
            let written = self.0.seek(SeekFrom::Start(0)).and_then(|_| self.0.write_all(text.as_bytes()));
            written.map_err(super::unavailable)?;
        }
        Ok(())
    }

    fn newest(&mut self) -> io::Result<i64> {
        let mut text = String::new();
        self.0.seek(SeekFrom::Start(0))?;
        self.0.read_to_string(&mut text)?;
        Ok(text.trim().parse().unwrap_or(i64::MIN))
    }
}

/// Removes the locks of deployments that have had no replica for `age`: their ids never come back, and a
/// worker that old has long lost its lease.
pub(super) fn tidy_locks(layout: &Layout, now: std::time::SystemTime, age: Duration) -> io::Result<()> {
    let in_use: std::collections::HashSet<_> = layout.names(None)?.iter().map(|name: &Name| name.deployment).collect();
    for (deployment, path) in layout.locks()? {
        let old = fs::metadata(&path)
            .and_then(|found| found.modified())
            .is_ok_and(|changed| now.duration_since(changed).is_ok_and(|since| since > age));
        if old && !in_use.contains(&deployment) {
            let _lock = DeploymentLock::take(layout, deployment)?;
            if layout.names(Some(deployment))?.is_empty() {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::DeploymentId;

    use super::*;

    fn record() -> Record {
        Record {
            id: ReplicaId("md-1-r1-0".to_owned()),
            phase: Phase::Running(Run {
                process: Identity::of(std::process::id()).expect("this test runs"),
                launcher: None,
                started_at: Timestamp(1),
                ready_since: None,
                artifact: None,
                log_from: 7,
                oom_kills_before: 0,
            }),
            restarts: 2,
            failures: 1,
            failure: None,
            files: None,
            groups: Vec::new(),
            memory_limit: Some("512Mi".to_owned()),
            request_timeout_ms: 30_000,
            notes: vec!["a note".to_owned()],
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let slot = dir.path().join("md-1-r1-0");
        write(&slot, &record()).expect("it is written");
        match read(&slot).expect("it is read") {
            Found::Record(found) => assert_eq!(format!("{found:?}"), format!("{:?}", record())),
            other @ (Found::Nothing | Found::Damaged(_)) => panic!("{other:?}"),
        }
        fs::write(slot.join(RECORD), "{").expect("it is damaged");
        assert!(matches!(read(&slot), Ok(Found::Damaged(_))));
    }

    #[test]
    fn a_fence_is_remembered_across_processes_and_an_older_one_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::open(dir.path()).expect("it opens");
        let lock = |fence| DeploymentLock::take(&layout, DeploymentId(1)).expect("it is free").check(fence);
        assert!(lock(5).is_ok());
        assert!(lock(5).is_ok());
        assert!(matches!(lock(4), Err(BackendError::Fenced { given: 4, newest: 5 })));
        assert!(lock(123_456).is_ok());
        assert!(matches!(lock(5), Err(BackendError::Fenced { given: 5, newest: 123_456 })));
    }

    #[test]
    fn locks_of_deployments_long_gone_are_tidied_away() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::open(dir.path()).expect("it opens");
        for id in [1, 2] {
            drop(DeploymentLock::take(&layout, DeploymentId(id)).expect("it is free"));
        }
        write(&layout.slot(&ReplicaId("md-1-r1-0".to_owned())), &record()).expect("it is written");
        let later = base::Clock::system().now() + Duration::from_secs(100);
        tidy_locks(&layout, later, Duration::from_secs(50)).expect("it works");
        let left: Vec<_> = layout.locks().expect("it is read").into_iter().map(|(id, _)| id).collect();
        assert_eq!(left, [DeploymentId(1)]);
    }
}
