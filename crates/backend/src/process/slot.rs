//! The record of one replica on disk, and the lock under which it changes.
//!
//! A slot is a folder with the record of a replica, its log and its termination message. The record is replaced as a
//! whole, and always announces a step before it is taken: a process is started only from a slot in
//! [`Phase::Launching`]. So after a crash it is known that a process may be running, and it is found by its arguments.
//!
//! **Invariant:** a record changes only under the [`DeploymentLock`] of its deployment, and only by a caller whose
//! fence is not older than the highest one seen, or because the process of the replica itself changed.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use api::{Epoch, Fence, Origin, ReplicaId, Revision, Timestamp, deployment::StatusError, revision::FoundFiles};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    fence,
    identity::Identity,
    layout::{Layout, Name, at},
};
use crate::BackendError;

const RECORD: &str = "replica.json";
const REVISION: &str = "revision.json";
/// The initial size of a record file, in bytes.
const ROOM: usize = 16 << 10;
/// By how much a longer record can grow in place, in bytes.
const SLACK: usize = 4 << 10;
/// How long to wait for a lock, and the delay between two attempts.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// One replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The name of the replica.
    pub(super) id: ReplicaId,
    /// The phase of the replica.
    #[serde(flatten)]
    pub(super) phase: Phase,
    /// How often it was restarted.
    pub(super) restarts: u32,
    /// How often in a row it ended by itself; a long healthy time resets it.
    pub(super) failures: u32,
    /// How its last process ended, until a later one is ready.
    pub(super) failure: Option<LastFailure>,
    /// The files that its processes found.
    #[serde(default)]
    pub(super) files: Option<FoundFiles>,
    /// The control groups of its processes.
    pub(super) groups: Vec<PathBuf>,
    /// The memory limit, as the user wrote it.
    pub(super) memory_limit: Option<String>,
    /// Its request timeout, in milliseconds.
    #[serde(default)]
    pub(super) request_timeout_ms: u64,
    /// Facts for the user.
    pub(super) notes: Vec<String>,
    /// Who started it; a version without epochs (0.1.0) did not record it.
    #[serde(default)]
    pub(super) origin: Option<Origin>,
}

/// The phase of a replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(super) enum Phase {
    /// A process is about to be started, or was started and its pid is not recorded yet.
    Launching,
    /// It has a process.
    Running(Run),
    /// It has a process that was told to stop.
    Stopping {
        /// The process.
        run: Run,
        /// When it was told.
        since: Timestamp,
    },
    /// Its process ended by itself.
    BackingOff {
        /// When it may be restarted.
        retry_at: Timestamp,
    },
}

/// One process of a replica, from start to end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// The process.
    pub(super) process: Identity,
    /// Its parent process, which learns how it ends.
    pub(super) launcher: Option<Identity>,
    /// When it was started.
    pub(super) started_at: Timestamp,
    /// When it was first ready.
    pub(super) ready_since: Option<Timestamp>,
    /// What it served when it became ready.
    pub(super) artifact: Option<String>,
    /// The offset of its first line in the log.
    pub(super) log_from: u64,
    /// The groups' count of processes killed because of the memory limit, before the start.
    pub(super) oom_kills_before: u64,
}

/// How a replica ended by itself, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LastFailure {
    /// What happened.
    pub(super) error: StatusError,
    /// Whether a person must change something.
    pub(super) permanent: bool,
}

impl Run {
    /// Whether it was ready at the last report, and has not ended since.
    pub(super) fn was_ready(&self) -> bool {
        self.ready_since.is_some() && self.process.is_alive()
    }
}

impl Record {
    /// Its process, if any.
    pub(super) fn run(&self) -> Option<&Run> {
        match &self.phase {
            Phase::Running(run) | Phase::Stopping { run, .. } => Some(run),
            Phase::Launching | Phase::BackingOff { .. } => None,
        }
    }

    /// Whether it was started, or taken over, in this epoch.
    pub(super) fn is_of(&self, epoch: &Epoch) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.epoch == *epoch)
    }

    /// Whether it was told to stop.
    pub(super) fn stopping_since(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Stopping { since, .. } => Some(*since),
            Phase::Running(_) | Phase::Launching | Phase::BackingOff { .. } => None,
        }
    }
}

/// The content of a slot.
#[derive(Debug)]
pub(super) enum Found {
    /// A record.
    Record(Box<Record>),
    /// A folder whose record was never written, or was removed.
    Nothing,
    /// An unreadable record, with the reason.
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

/// Replaces the record of a slot as a whole; creates the slot if it is missing. If the slot was written before, this
/// needs no space, so a replica that ends is restarted even on a full disk.
pub(super) fn write(slot: &Path, record: &Record) -> io::Result<()> {
    match fs::create_dir(slot) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at("create", slot, error)),
    }
    let path = slot.join(RECORD);
    let text = |record| Ok(serde_json::to_vec_pretty(record)?);
    let written = match text(record).and_then(|text| replace(&path, text)) {
        // The record has grown by the lines of a log. The log file still has them, so they can be left out.
        Err(error) if is_full(&error) && record.failure.as_ref().is_some_and(|it| !it.error.log.is_empty()) => {
            let mut record = record.clone();
            record.failure.iter_mut().for_each(|failure| failure.error.log.clear());
            text(&record).and_then(|text| replace(&path, text))
        }
        written => written,
    };
    written.map_err(|error| at("write", &path, error))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes JSON over the older text, and then exchanges the two files.
fn replace(path: &Path, mut text: Vec<u8>) -> io::Result<()> {
    let spare = path.with_extension("json.new");
    let mut file = base::private::options().write(true).create(true).truncate(false).open(&spare)?;
    let room = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    // Blanks after a JSON value are allowed.
    text.resize(if text.len() > room { ROOM.max(text.len() + SLACK) } else { room }, b' ');
    file.write_all(&text)?;
    match renameat_with(CWD, &spare, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // There is no record yet, or the file system does not support it.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => fs::rename(&spare, path),
        Err(error) => Err(error.into()),
    }
}

/// Stores the revision of a replica, so that it can be restarted without the database. The first time it is written
/// twice, so that a later pin needs no space.
pub(super) fn write_revision(slot: &Path, revision: &Revision) -> io::Result<()> {
    let path = slot.join(REVISION);
    let text = serde_json::to_vec(revision)?;
    let kept = fs::read(&path).ok();
    if kept.as_ref().is_some_and(|kept| kept.trim_ascii_end() == text) {
        return Ok(());
    }
    let first = if kept.is_none() { replace(&path, text.clone()) } else { Ok(()) };
    first.and_then(|()| replace(&path, text)).map_err(|error| at("write", &path, error))
}

/// The revision of a replica, if it was stored.
pub(super) fn revision(slot: &Path) -> io::Result<Option<Revision>> {
    match fs::read(slot.join(REVISION)) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", &slot.join(REVISION), error)),
    }
}

/// The right to change the replicas of one deployment, across all processes that use the data directory. It is released
/// when dropped, and by the kernel when its holder dies.
///
/// A child process shares it until it executes its own program. So whoever gets the lock after a crash sees either no
/// child, or one with readable arguments.
#[derive(Debug)]
pub(super) struct DeploymentLock(File);

impl DeploymentLock {
    /// Waits for the lock. It is normally held only while processes are started. A holder that keeps it longer hangs,
    /// and must not block others too.
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
            // It may have been removed between opening and locking.
            let ours = file.metadata()?.ino();
            match fs::metadata(&path) {
                Ok(found) if found.ino() == ours => return Ok(Self(file)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at("inspect", &path, error)),
            }
        }
    }

    /// Refuses a fence that is older than the highest one seen of its epoch. Otherwise stores it.
    pub(super) fn check(&mut self, fence: &Fence) -> Result<(), BackendError> {
        fence::admit(&mut self.0, fence)
    }
}

/// Removes the locks of deployments that have had no replica for `age`: their ids are never reused, and a worker that
/// old has lost its lease.
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
            origin: Some(Origin { epoch: Epoch("e".to_owned()), fence: 3, made_at: Timestamp(9) }),
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
    fn a_record_that_becomes_shorter_leaves_nothing_of_the_longer_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let slot = dir.path().join("md-1-r1-0");
        let long = Record { notes: vec!["x".repeat(2 * ROOM)], ..record() };
        for wanted in [&record(), &long, &record(), &record(), &long, &record()] {
            write(&slot, wanted).expect("it is written");
            match read(&slot).expect("it is read") {
                Found::Record(found) => assert_eq!(format!("{found:?}"), format!("{wanted:?}")),
                other @ (Found::Nothing | Found::Damaged(_)) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_revision_that_is_pinned_later_is_written_over_without_taking_space() {
        let slot = tempfile::tempdir().expect("a folder");
        let mut kept = crate::conformance::revision(DeploymentId(1), api::RevisionNumber(1), "file:///model");
        kept.spec.env.insert("LONG".to_owned(), "x".repeat(2 * ROOM));
        let mut pinned = kept.clone();
        let files = FoundFiles { uri: "file:///model".to_owned(), digest: "d".repeat(71), fingerprint: None };
        pinned.pin = Some(api::revision::Pin { files, at: Timestamp(3) });
        let sizes = || {
            let files = fs::read_dir(slot.path()).expect("it is read").map(|file| file.expect("a file"));
            let mut sizes: Vec<_> =
                files.map(|file| (file.file_name(), file.metadata().expect("it is there").len())).collect();
            sizes.sort();
            sizes
        };
        write_revision(slot.path(), &kept).expect("it is written");
        let before = sizes();
        for wanted in [&kept, &pinned, &kept] {
            write_revision(slot.path(), wanted).expect("it is written");
            assert_eq!(revision(slot.path()).expect("it is read").as_ref(), Some(wanted));
            assert_eq!(sizes(), before);
        }
    }

    #[test]
    fn a_record_of_0_1_0_is_read_as_one_without_an_origin() {
        let mut text = serde_json::to_value(record()).expect("it is written");
        text.as_object_mut().expect("a record").remove("origin").expect("it is there");
        let read: Record = serde_json::from_value(text).expect("it is read");
        assert_eq!(read.origin, None);
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
