//! Downloads one remote file to disk, and resumes after a failure.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, channel};

use crate::{
    Config,
    blocking::blocking,
    error::Failure,
    lock::Lock,
    remote::{Body, Remote, RemoteFile},
    shelf::too_large,
};

/// How many chunks may wait between the network and the disk.
const CHUNKS: usize = 16;
/// Maximum delay between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// The delay before the next attempt, after `failures` consecutive ones.
pub(crate) fn backoff(config: &Config, failures: u32) -> Duration {
    let doubled = config.backoff_ms.saturating_mul(1 << failures.saturating_sub(1).min(16));
    Duration::from_millis(doubled).min(MAX_BACKOFF)
}

/// The state that all downloads of one artefact share.
pub(crate) struct Download<'a> {
    pub(crate) remote: &'a Remote,
    pub(crate) config: &'a Config,
    /// Each write holds it too: a write that outlives a cancelled call must not meet those of the next call.
    pub(crate) lock: Arc<Lock>,
}

impl Download<'_> {
    /// Completes `target`, which may contain the beginning of the same file. `first` is the stream from its start, if
    /// it is already open. An attempt that got further than all before it does not count.
    pub(crate) async fn complete(
        &self,
        file: &RemoteFile,
        target: &Path,
        mut first: Option<Body>,
    ) -> Result<(), Failure> {
        let mut furthest = length(target)?;
        let mut failures = 0;
        loop {
            let have = length(target)?;
            if have > 0 && file.size == Some(have) {
                return Ok(());
            }
            let reason = match self.attempt(file, target, have, first.take()).await {
                Err(Failure::Broken(reason)) => reason,
                settled => return settled,
            };
            let now = length(target)?;
            failures = if now > furthest { 0 } else { failures + 1 };
            furthest = furthest.max(now);
            if failures >= self.config.attempts {
                return Err(Failure::Broken(reason));
            }
            tracing::debug!(reason, have = now, "a download broke and is resumed");
            tokio::time::sleep(backoff(self.config, failures.max(1))).await;
        }
    }

    async fn attempt(&self, file: &RemoteFile, target: &Path, have: u64, first: Option<Body>) -> Result<(), Failure> {
        let too_long = file.size.is_some_and(|size| have > size);
        let from = if too_long { 0 } else { have };
        let mut body = match first {
            Some(body) if from == 0 => body,
            _ => self.remote.open(file, from).await?,
        };
        let mut length = body.offset;
        let (sender, chunks) = channel(CHUNKS);
        let writer = Writer { target: target.to_owned(), offset: length, _lock: Arc::clone(&self.lock) };
        let writing = tokio::task::spawn_blocking(move || writer.run(chunks));
        let read = loop {
            match body.next().await {
                None => break Ok(()),
                Some(Err(reason)) => break Err(Failure::Broken(reason)),
                Some(Ok(chunk)) => {
                    length += chunk.len() as u64;
                    if length > self.config.limit_bytes {
                        break Err(too_large(length, self.config.limit_bytes));
                    }
                    if sender.send(chunk).await.is_err() {
                        break Ok(()); // The writer stopped, and says why below.
                    }
                }
            }
        };
        drop(sender);
        blocking(writing).await??;
        read?;
        match file.size {
            Some(size) if size != length => Err(Failure::Broken(format!("it ended after {length} of {size} bytes"))),
            _ => Ok(()),
        }
    }
}

/// Writes chunks to a file on a separate thread.
struct Writer {
    target: PathBuf,
    offset: u64,
    _lock: Arc<Lock>,
}

impl Writer {
    fn run(self, mut chunks: Receiver<Bytes>) -> io::Result<()> {
        if let Some(folder) = self.target.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file: File = OpenOptions::new().create(true).truncate(false).write(true).open(&self.target)?;
        file.set_len(self.offset)?;
        file.seek(SeekFrom::Start(self.offset))?;
        while let Some(chunk) = chunks.blocking_recv() {
            file.write_all(&chunk)?;
        }
        Ok(())
    }
}

fn length(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
