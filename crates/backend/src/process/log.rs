//! The logs of replicas: the replicas append to them; here they are limited and read.
//!
//! A log that is too long is copied and then truncated in place, because the replica keeps the file open. Output in the
//! moment between the two is lost. Followers lose nothing, because they finish the copy first. The log of a removed
//! replica is kept for some time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use api::{ReplicaId, Timestamp};
use bytes::Bytes;

use super::layout::at;

const LOG: &str = "log";
const OLDER: &str = "log.1";
const CHUNK_BYTES: usize = 64 * 1024;
/// Maximum length of a line in an error, in characters.
const LINE_MAX_CHARS: usize = 500;
/// Maximum number of bytes that are read from the end of a log.
const TAIL_MAX_BYTES: u64 = 4 << 20;

/// Opens the log of a slot for a new process, and returns the offset of its first line.
pub(super) fn open_for_append(slot: &Path) -> io::Result<(File, u64)> {
    let path = slot.join(LOG);
    let file = base::private::append(&path).map_err(|error| at("open", &path, error))?;
    let from = file.metadata()?.len();
    Ok((file, from))
}

/// The last lines after the offset `from`, each cut to a readable length.
pub(super) fn last_lines(slot: &Path, from: u64, lines: usize) -> Vec<String> {
    let read = || {
        let file = File::open(slot.join(LOG))?;
        let len = file.metadata()?.len();
        // A log that is shorter than its offset was truncated in the meantime.
        let from = if len < from { 0 } else { from };
        read_range(&file, from.max(len.saturating_sub(CHUNK_BYTES as u64)), len)
    };
    let Ok(text) = read() else { return Vec::new() };
    let text = String::from_utf8_lossy(&text);
    let mut last: Vec<String> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(lines).map(cut).collect();
    last.reverse();
    last
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE_MAX_CHARS) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.to_owned(),
    }
}

/// The last `lines` lines of a log and its rotated part, and the offset of the end.
pub(super) fn tail(slot: &Path, lines: usize) -> io::Result<(Vec<u8>, u64)> {
    let file = File::open(slot.join(LOG))?;
    let len = file.metadata()?.len();
    let mut text = tail_of(&file, len, lines)?;
    if count_lines(&text) < lines
        && text.len() as u64 == len
        && let Ok(older) = File::open(slot.join(OLDER))
    {
        let older_len = older.metadata()?.len();
        let mut both = tail_of(&older, older_len, lines - count_lines(&text))?;
        both.append(&mut text);
        text = both;
    }
    Ok((text, len))
}

/// The last `lines` lines of one file.
pub(super) fn tail_of_file(path: &Path, lines: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    tail_of(&file, len, lines)
}

fn tail_of(file: &File, len: u64, lines: usize) -> io::Result<Vec<u8>> {
    let mut span = CHUNK_BYTES as u64;
    loop {
        let text = read_range(file, len.saturating_sub(span), len)?;
        if count_lines(&text) > lines || span >= len.min(TAIL_MAX_BYTES) {
            let surplus = count_lines(&text).saturating_sub(lines);
            let mut ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
            let from = match surplus {
                0 => 0,
                surplus => ends.nth(surplus - 1).unwrap_or(text.len()),
            };
            return Ok(text[from..].to_vec());
        }
        span *= 4;
    }
}

/// An incomplete last line counts too.
fn count_lines(text: &[u8]) -> usize {
    let ends = text.iter().filter(|byte| **byte == b'\n').count();
    ends + usize::from(text.last().is_some_and(|byte| *byte != b'\n'))
}

fn read_range(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut text = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < text.len() {
        match file.read_at(&mut text[filled..], from + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    text.truncate(filled);
    Ok(text)
}

/// Rotates a log: copies and truncates it, if it is longer than `max` bytes and nobody else is doing it.
pub(super) fn rotate(slot: &Path, max: u64) -> io::Result<bool> {
    let path = slot.join(LOG);
    let mut log = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(at("open", &path, error)),
    };
    match log.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(at("lock", &path, error)),
    }
    if log.metadata()?.len() <= max {
        return Ok(false);
    }
    let fresh = slot.join("log.1.new");
    let copied = base::private::create(&fresh).and_then(|mut copy| {
        log.seek(SeekFrom::Start(0))?;
        io::copy(&mut log, &mut copy)
    });
    if let Err(error) = copied {
        // On a full disk the limit is more important than the lines.
        tracing::warn!(slot = %slot.display(), %error, "a log is cut without a copy");
        let _ = fs::remove_file(&fresh);
        return log.set_len(0).map(|()| true);
    }
    log.set_len(0)?;
    fs::rename(&fresh, slot.join(OLDER)).map_err(|error| at("rename", &fresh, error))?;
    Ok(true)
}

/// Follows a log.
#[derive(Debug)]
pub(super) struct Follower {
    slot: PathBuf,
    log: File,
    at: u64,
    older: Option<u64>,
    unread: Option<File>,
}

/// The result of one read.
#[derive(Debug)]
pub(super) enum Step {
    /// New lines, or parts of lines.
    Grown(Bytes),
    /// Nothing new.
    Quiet,
    /// The replica is gone and everything was read.
    Ended,
}

impl Follower {
    /// Begins at the offset `at`.
    pub(super) fn open(slot: &Path, at: u64) -> io::Result<Self> {
        let log = File::open(slot.join(LOG))?;
        Ok(Self { slot: slot.to_owned(), log, at, older: inode(&slot.join(OLDER)), unread: None })
    }

    /// New output since the last step. Reads a file, so it blocks for a moment.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        // Protects against a rotation at the same time.
        self.log.lock_shared()?;
        let step = self.locked_step();
        self.log.unlock()?;
        step
    }

    fn locked_step(&mut self) -> io::Result<Step> {
        let older = inode(&self.slot.join(OLDER));
        if older.is_some() && older != self.older {
            let mut copy = File::open(self.slot.join(OLDER))?;
            copy.seek(SeekFrom::Start(self.at))?;
            (self.older, self.unread, self.at) = (older, Some(copy), 0);
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        if let Some(copy) = &mut self.unread {
            match copy.read(&mut chunk)? {
                0 => self.unread = None,
                read => return Ok(grown(chunk, read)),
            }
        }
        let found = self.log.metadata()?;
        if found.len() < self.at {
            self.at = 0;
        }
        match self.log.read_at(&mut chunk, self.at)? {
            0 if inode(&self.slot.join(LOG)) == Some(found.ino()) => Ok(Step::Quiet),
            0 => Ok(Step::Ended),
            read => {
                self.at += read as u64;
                Ok(grown(chunk, read))
            }
        }
    }
}

fn grown(mut chunk: Vec<u8>, read: usize) -> Step {
    chunk.truncate(read);
    Step::Grown(chunk.into())
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|found| found.ino())
}

/// Keeps the log of a removed replica, and deletes the oldest logs over the limits.
pub(super) fn keep(slot: &Path, replica: &ReplicaId, ended: &Path, now: Timestamp, bounds: Bounds) -> io::Result<()> {
    match fs::rename(slot.join(LOG), ended.join(format!("{replica}-{}.log", now.0))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        moved => moved?,
    }
    let mut logs = kept(ended)?;
    let mut bytes: u64 = logs.iter().map(|log| log.bytes).sum();
    while logs.len() > bounds.files || (bytes > bounds.bytes && logs.len() > 1) {
        let oldest = logs.remove(0);
        bytes -= oldest.bytes;
        match fs::remove_file(&oldest.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The newest log of a removed replica.
pub(super) fn kept_of(ended: &Path, replica: &ReplicaId) -> io::Result<Option<PathBuf>> {
    Ok(kept(ended)?.into_iter().rev().find(|log| log.replica == replica.0).map(|log| log.path))
}

/// How many logs of removed replicas are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Maximum number of files.
    pub(super) files: usize,
    /// Maximum total size in bytes; the newest log is always kept.
    pub(super) bytes: u64,
}

struct Kept {
    at: i64,
    replica: String,
    bytes: u64,
    path: PathBuf,
}

/// The oldest first.
fn kept(ended: &Path) -> io::Result<Vec<Kept>> {
    let mut logs: Vec<Kept> = fs::read_dir(ended)?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let (replica, at) = name.to_str()?.strip_suffix(".log")?.rsplit_once('-')?;
            let bytes = entry.metadata().ok()?.len();
            Some(Kept { at: at.parse().ok()?, replica: replica.to_owned(), bytes, path: entry.path() })
        })
        .collect();
    logs.sort_by_key(|log| log.at);
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn slot_with(lines: usize) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut log, from) = open_for_append(dir.path()).expect("it opens");
        assert_eq!(from, 0);
        for line in 0..lines {
            writeln!(log, "line {line}").expect("it is written");
        }
        (dir, log)
    }

    fn everything(follower: &mut Follower) -> String {
        let mut text = String::new();
        while let Step::Grown(chunk) = follower.step().expect("it reads") {
            text.push_str(std::str::from_utf8(&chunk).expect("whole lines"));
        }
        text
    }

    #[test]
    fn a_tail_is_the_last_lines_however_long_the_log() {
        let (dir, _log) = slot_with(20_000);
        let (text, end) = tail(dir.path(), 2).expect("it reads");
        assert_eq!(text, b"line 19998\nline 19999\n");
        assert_eq!(end, fs::metadata(dir.path().join(LOG)).expect("it is there").len());
        assert_eq!(count_lines(&tail(dir.path(), 15_000).expect("it reads").0), 15_000);
        assert_eq!(tail(dir.path(), 0).expect("it reads").0, b"");
    }

    #[test]
    fn a_tail_reaches_into_the_part_that_was_copied_aside() {
        let (dir, mut log) = slot_with(3);
        assert!(rotate(dir.path(), 1).expect("it rotates"));
        assert!(!rotate(dir.path(), 1).expect("there is nothing to do"));
        writeln!(log, "line 3").expect("it is written");
        assert_eq!(tail(dir.path(), 3).expect("it reads").0, b"line 1\nline 2\nline 3\n");
    }

    #[test]
    fn a_follower_sees_every_line_across_a_rotation() {
        let (dir, mut log) = slot_with(1);
        let mut follower = Follower::open(dir.path(), 0).expect("it opens");
        assert_eq!(everything(&mut follower), "line 0\n");
        writeln!(log, "before").expect("it is written");
        assert!(rotate(dir.path(), 1).expect("it rotates"));
        writeln!(log, "after, and longer than what was there before").expect("it is written");
        assert_eq!(everything(&mut follower), "before\nafter, and longer than what was there before\n");
        fs::remove_file(dir.path().join(LOG)).expect("it is there");
        assert!(matches!(follower.step(), Ok(Step::Ended)));
    }

    #[test]
    fn last_lines_are_those_of_this_life_and_short() {
        let (dir, mut log) = slot_with(5);
        let (_, from) = open_for_append(dir.path()).expect("it opens");
        writeln!(log, "new\n\n{}", "x".repeat(900)).expect("it is written");
        let lines = last_lines(dir.path(), from, 20);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "new");
        assert_eq!(lines[1].chars().count(), LINE_MAX_CHARS + 2);
        assert_eq!(last_lines(dir.path(), u64::MAX, 1).len(), 1, "a log that was cut is read from its start");
    }

    #[test]
    fn logs_of_replicas_that_are_gone_are_kept_within_bounds() {
        let ended = tempfile::tempdir().expect("a folder");
        let bounds = Bounds { files: 3, bytes: 1 << 20 };
        let replica = ReplicaId("md-1-r1-0".to_owned());
        for time in 0..5 {
            let (slot, _log) = slot_with(time);
            let now = Timestamp(i64::try_from(time).expect("it is small"));
            keep(slot.path(), &replica, ended.path(), now, bounds).expect("it is kept");
        }
        assert_eq!(kept(ended.path()).expect("it is read").len(), 3);
        let newest = kept_of(ended.path(), &replica).expect("it is read").expect("there is one");
        assert_eq!(count_lines(&tail_of_file(&newest, 100).expect("it reads")), 4);
        let none = kept_of(ended.path(), &ReplicaId("md-1-r1-1".to_owned())).expect("it is read");
        assert!(none.is_none());
    }
}
