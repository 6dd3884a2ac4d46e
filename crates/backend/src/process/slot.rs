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
/// The length that a file has from the start, in bytes.
const ROOM: usize = 16 << 10;
/// By how much a longer one can grow in place, in bytes.
const SLACK: usize = 4 << 10;
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
    /// Who started it; a version without epochs (0.1.0) wrote none.
    #[serde(default)]
    pub(super) origin: Option<Origin>,
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

    /// Whether it was started, or taken over, in this epoch.
    pub(super) fn is_of(&self, epoch: &Epoch) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.epoch == *epoch)
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

/// Replaces a slot's record as a whole; makes the slot if it is missing. In a slot that was written before it needs no space:
/// a replica that ends is started again on a full disk too.
pub(super) fn write(slot: &Path, record: &Record) -> io::Result<()> {
    match fs::create_dir(slot) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at("create", slot, error)),
    }
    let path = slot.join(RECORD);
    let text = |record| Ok(serde_json::to_vec_pretty(record)?);
    let written = match text(record).and_then(|text| replace(&path, text)) {
        // It has grown by the lines of a log, which can be read there too.
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

/// Writes JSON over the text before the last one, and lets the two change places.
fn replace(path: &Path, mut text: Vec<u8>) -> io::Result<()> {
    let spare = path.with_extension("json.new");
    let mut file = base::private::options().write(true).create(true).truncate(false).open(&spare)?;
    let room = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    // Blanks after a JSON value are part of no value.
    text.resize(if text.len() > room { ROOM.max(text.len() + SLACK) } else { room }, b' ');
    file.write_all(&text)?;
    match renameat_with(CWD, &spare, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // There is no record yet, or the file system cannot do this.
        Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => fs::rename(&spare, path),
        Err(error) => Err(error.into()),
    }
}

/// Keeps the revision that a slot's replica runs, so that it can be started again while nobody can be asked. It is written
/// twice at first: then a pin that comes later needs no space.
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

/// The revision that a slot's replica runs, if it was kept.
pub(super) fn revision(slot: &Path) -> io::Result<Option<Revision>> {
    match fs::read(slot.join(REVISION)) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", &slot.join(REVISION), error)),
    }
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

    /// Refuses a fence that is older than the newest one seen of its epoch, else remembers it.
    pub(super) fn check(&mut self, fence: &Fence) -> Result<(), BackendError> {
        fence::admit(&mut self.0, fence)
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
