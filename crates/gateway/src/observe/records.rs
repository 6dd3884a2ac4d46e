//! The prediction log: who answered which request, with what result and how fast.
//!
//! Each serving thread writes the line of a record into its own bounded list. This needs no wake-up, and costs less
//! than passing the record to another thread. One task takes the lists a few times a second and appends them to a file.
//! It has little to do, so it does not delay a serving thread on the same CPU. If it cannot keep up, or the disk fails,
//! records are dropped and counted: a prediction never waits for its record.
//!
//! Each record is a line of JSON. A file is named after the time of its first record. Inputs and outputs are included
//! only if the deployment asks for them, cut to a limit, with their original length.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{Timestamp, deployment::LogPayloads};
use http::HeaderValue;
use serde_json::json;

use crate::{
    config::Config,
    table::{
        endpoint::{Endpoint, Revision},
        replica::Replica,
    },
};

/// Interval of emptying the lists.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// Maximum number of payloads that wait on one thread; further records have none.
const WAITING_PAYLOAD_BYTES: usize = 32 << 20;
/// Emptied lists of lines are reused up to this size.
const SPARE_BYTES: usize = 4 << 20;
/// A file is closed after this time even if it is small.
const FILE_MICROS: i64 = 3_600_000_000;

/// What is known about a request before it is answered.
#[derive(Debug)]
pub(crate) struct Draft {
    /// `infer`, `predict` …
    pub(crate) kind: &'static str,
    /// The request's id.
    pub(crate) id: HeaderValue,
    /// Inputs and outputs, if the deployment logs them.
    pub(crate) payloads: Option<Box<Payloads>>,
}

impl Draft {
    /// For a prediction with this body, of which at most `most` bytes are kept if `log` wants them.
    pub(crate) fn new(kind: &'static str, id: HeaderValue, log: LogPayloads, body: &[u8], most: usize) -> Self {
        let logged = match log {
            // Protobuf tensors are not text; the log contains who, when and how fast.
            _ if kind == "grpc_infer" => false,
            LogPayloads::None => false,
            LogPayloads::Sample => rand::random_range(0..100) == 0,
            LogPayloads::All => true,
        };
        let payloads = logged.then(|| {
            let mut payloads = Box::<Payloads>::default();
            payloads.input.add(body, most);
            payloads
        });
        Self { kind, id, payloads }
    }
}

/// The inputs and outputs of a request.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    pub(crate) input: Payload,
    pub(crate) output: Payload,
}

/// The beginning of a body, and its whole length.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    bytes: Vec<u8>,
    length: usize,
}

impl Payload {
    /// Adds a piece; keeps `most` bytes in total.
    pub(crate) fn add(&mut self, data: &[u8], most: usize) {
        let left = most.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&data[..data.len().min(left)]);
        self.length += data.len();
    }

    fn json(&self) -> serde_json::Value {
        // Cutting may split a character; invalid text is not shown.
        let text = match std::str::from_utf8(&self.bytes) {
            Ok(text) => Some(text),
            Err(error) if error.error_len().is_none() => std::str::from_utf8(&self.bytes[..error.valid_up_to()]).ok(),
            Err(_) => None,
        };
        json!({"bytes": self.length, "truncated": self.bytes.len() < self.length, "text": text})
    }
}

/// One answered request.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub(crate) at: Timestamp,
    pub(crate) draft: Draft,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) revision: &'a Revision,
    pub(crate) replica: &'a Replica,
    pub(crate) code: u16,
    /// Whether the answer was complete.
    pub(crate) whole: bool,
    pub(crate) latency_us: u64,
}

impl Record<'_> {
    /// Everything but the payloads.
    fn write(&self, line: &mut Vec<u8>, second: &mut Second) {
        let mut number = itoa::Buffer::new();
        line.extend_from_slice(b"{\"time\":\"");
        second.write(self.at, line);
        line.extend_from_slice(b"\",\"id\":\"");
        // Request ids are validated on arrival.
        line.extend_from_slice(self.draft.id.as_bytes());
        line.extend_from_slice(b"\",\"deployment\":\"");
        line.extend_from_slice(self.endpoint.label().as_bytes());
        line.extend_from_slice(b"\",\"revision\":");
        line.extend_from_slice(number.format(self.revision.number).as_bytes());
        line.extend_from_slice(b",\"replica\":");
        let _infallible = serde_json::to_writer(&mut *line, &self.replica.id);
        line.extend_from_slice(b",\"code\":");
        line.extend_from_slice(number.format(self.code).as_bytes());
        line.extend_from_slice(b",\"latency_us\":");
        line.extend_from_slice(number.format(self.latency_us).as_bytes());
        line.extend_from_slice(b",\"kind\":\"");
        line.extend_from_slice(self.draft.kind.as_bytes());
        line.push(b'"');
        if !self.whole {
            line.extend_from_slice(b",\"cut_off\":true");
        }
    }
}

/// Writes timestamps; those within one second share the work.
#[derive(Debug, Default)]
struct Second {
    at: i64,
    text: String,
}

impl Second {
    fn write(&mut self, time: Timestamp, line: &mut Vec<u8>) {
        let second = time.0.div_euclid(1_000_000);
        if self.at != second || self.text.is_empty() {
            self.at = second;
            self.text = Timestamp(second * 1_000_000).to_string();
            self.text.truncate(self.text.len().saturating_sub(6));
        }
        let mut micros = time.0.rem_euclid(1_000_000);
        let mut digits = [b'0'; 6];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(micros % 10).unwrap_or(0);
            micros /= 10;
        }
        line.extend_from_slice(self.text.as_bytes());
        line.extend_from_slice(&digits);
    }
}

/// The waiting records of one thread.
#[derive(Debug)]
pub(crate) struct Records {
    waiting: Mutex<Waiting>,
    most: usize,
    /// Records that were dropped because too many were waiting.
    pub(crate) dropped: AtomicU64,
    /// Records that lost their payloads for the same reason.
    pub(crate) bare: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    lines: Vec<u8>,
    /// The payloads that belong at the end of a line, and where the line is incomplete.
    payloads: Vec<(usize, Box<Payloads>)>,
    payload_bytes: usize,
    second: Second,
}

impl Records {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            waiting: Mutex::default(),
            most: if config.predictions_dir.is_some() { config.record_queue } else { 0 },
            dropped: AtomicU64::new(0),
            bare: AtomicU64::new(0),
        }
    }

    /// Whether records are written at all.
    pub(crate) fn wanted(&self) -> bool {
        self.most > 0
    }

    /// Only the writer also takes this lock, for a moment.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a record, or drops and counts it.
    pub(crate) fn push(&self, mut record: Record<'_>) {
        let mut waiting = self.lock();
        if waiting.count >= self.most {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Waiting { count, lines, payloads, payload_bytes, second } = &mut *waiting;
        *count += 1;
        record.write(lines, second);
        if let Some(added) = record.draft.payloads.take() {
            let bytes = *payload_bytes + added.input.bytes.len() + added.output.bytes.len();
            if bytes <= WAITING_PAYLOAD_BYTES {
                *payload_bytes = bytes;
                payloads.push((lines.len(), added));
                return;
            }
            self.bare.fetch_add(1, Ordering::Relaxed);
        }
        lines.extend_from_slice(b"}\n");
    }

    /// Whether no record is waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().count == 0
    }

    /// Takes the waiting lines. The next lines go into `empty`.
    fn take(&self, empty: Vec<u8>) -> Waiting {
        let mut waiting = self.lock();
        let second = std::mem::take(&mut waiting.second);
        std::mem::replace(&mut *waiting, Waiting { lines: empty, second, ..Waiting::default() })
    }
}

/// The current file.
#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    length: u64,
    since: Timestamp,
}

/// Appends records to the files of one folder.
#[derive(Debug)]
pub(crate) struct Writer {
    folder: PathBuf,
    file_bytes: u64,
    total_bytes: u64,
    open: Option<Open>,
    /// Emptied lists of lines, for the next records.
    spare: Vec<Vec<u8>>,
    failing: bool,
    /// Records that could not be written to disk.
    lost: Arc<AtomicU64>,
}

impl Writer {
    pub(crate) fn new(folder: PathBuf, config: &Config, lost: Arc<AtomicU64>) -> Self {
        Self {
            folder,
            file_bytes: config.record_file_bytes,
            total_bytes: config.record_total_bytes,
            open: None,
            spare: Vec::new(),
            failing: false,
            lost,
        }
    }

    /// Writes the waiting records. Blocks as long as the disk takes.
    pub(crate) fn flush(&mut self, lists: &[Arc<Records>], now: Timestamp) {
        for list in lists {
            let Waiting { count, mut lines, payloads, .. } = list.take(self.spare.pop().unwrap_or_default());
            if count == 0 {
                self.spare.push(lines);
                continue;
            }
            if !payloads.is_empty() {
                lines = completed(&lines, payloads);
            }
            match self.append(&lines, now) {
                Ok(()) => self.failing = false,
                Err(error) => {
                    self.lost.fetch_add(count as u64, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.failing, true) {
                        let folder = self.folder.display();
                        tracing::warn!("cannot record predictions in {folder}: {error}; they are still served");
                    }
                }
            }
            if lines.capacity() <= SPARE_BYTES {
                lines.clear();
                self.spare.push(lines);
            }
        }
    }

    fn append(&mut self, lines: &[u8], now: Timestamp) -> io::Result<()> {
        if let Some(Open { length, since, .. }) = &self.open
            && (*length + lines.len() as u64 > self.file_bytes || now.0 - since.0 > FILE_MICROS)
        {
            self.open = None;
        }
        if self.open.is_none() {
            std::fs::create_dir_all(&self.folder)?;
            prune(&self.folder, self.total_bytes.saturating_sub(self.file_bytes))?;
            // Sorting by name sorts by time.
            let path = self.folder.join(format!("{}.jsonl", now.to_string().replace(':', "-")));
            let file = base::private::append(&path)?;
            let length = file.metadata()?.len();
            self.open = Some(Open { file, path, length, since: now });
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Err(error) = open.file.write_all(lines) {
            // A truncated line would make the next one invalid.
            let cut = open.file.set_len(open.length);
            if open.length == 0 {
                let _removed = std::fs::remove_file(&open.path);
            }
            if cut.is_err() || open.length == 0 {
                self.open = None;
            }
            return Err(error);
        }
        open.length += lines.len() as u64;
        Ok(())
    }
}

/// The lines with their payloads.
fn completed(lines: &[u8], payloads: Vec<(usize, Box<Payloads>)>) -> Vec<u8> {
    let mut whole = Vec::with_capacity(lines.len());
    let mut done = 0;
    for (at, payloads) in payloads {
        whole.extend_from_slice(&lines[done..at]);
        done = at;
        whole.extend_from_slice(b",\"input\":");
        let _infallible = serde_json::to_writer(&mut whole, &payloads.input.json());
        whole.extend_from_slice(b",\"output\":");
        let _infallible = serde_json::to_writer(&mut whole, &payloads.output.json());
        whole.extend_from_slice(b"}\n");
    }
    whole.extend_from_slice(&lines[done..]);
    whole
}

/// Deletes the oldest files until at most `most` bytes are left. Other gateways may do so in the same folder.
fn prune(folder: &Path, most: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "jsonl")
            && let Some(metadata) = unless_gone(entry.metadata())?
        {
            files.push((entry.file_name(), entry.path(), metadata.len()));
        }
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(.., length)| length).sum();
    for (_, path, length) in files {
        if total <= most {
            break;
        }
        unless_gone(std::fs::remove_file(path))?;
        total -= length;
    }
    Ok(())
}

/// Nothing for a file that was already deleted.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
