//! Locks between processes, which the kernel releases when their holder dies.
//!
//! A lock is a `flock` on its own file. An exclusive holder removes the file when it is done, so that the files do not
//! accumulate. Therefore a lock is valid only if its path still refers to the same file after it was taken.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// The minimum and maximum delay between two attempts to take a lock: the kernel has no asynchronous `flock`.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    exclusive: bool,
    _file: File,
}

impl Lock {
    /// Takes the exclusive lock, unless somebody holds it.
    pub(crate) fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        Self::attempt(path, true)
    }

    /// Takes the exclusive lock, after waiting for all other holders. The second value says whether it waited.
    pub(crate) async fn exclusive(path: &Path) -> io::Result<(Self, bool)> {
        Self::wait(path, true).await
    }

    /// Takes a shared lock, after waiting for an exclusive holder.
    pub(crate) async fn shared(path: &Path) -> io::Result<Self> {
        Ok(Self::wait(path, false).await?.0)
    }

    async fn wait(path: &Path, exclusive: bool) -> io::Result<(Self, bool)> {
        let mut pause = PAUSE.0;
        let mut waited = false;
        loop {
            if let Some(lock) = Self::attempt(path, exclusive)? {
                return Ok((lock, waited));
            }
            waited = true;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn attempt(path: &Path, exclusive: bool) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            let taken = if exclusive { file.try_lock() } else { file.try_lock_shared() };
            match taken {
                Ok(()) if names(path, &file)? => {
                    return Ok(Some(Self { path: path.to_owned(), exclusive, _file: file }));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.exclusive {
            // If it is left behind, it only costs an inode.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn names(path: &Path, file: &File) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok(named.ino() == held.ino() && named.dev() == held.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_exclusive_lock_waits_for_shared_ones_and_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let first = Lock::shared(&path).await.expect("it is free");
        let second = Lock::shared(&path).await.expect("it can be shared");
        assert!(Lock::try_exclusive(&path).expect("no fault").is_none());
        drop(first);
        assert!(Lock::try_exclusive(&path).expect("no fault").is_none());
        drop(second);
        let alone = Lock::try_exclusive(&path).expect("no fault").expect("it is free");
        let waiting = Lock::exclusive(&path);
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(alone);
        let (lock, waited) = waiting.await.expect("it is free now");
        assert!(waited);
        drop(lock);
        assert!(!path.exists());
    }
}
