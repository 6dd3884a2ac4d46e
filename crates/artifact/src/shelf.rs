//! The folder of the cache, and what is removed when it is full.
//!
//! - `sha256/<hex>/`: complete artefacts by digest; `<hex>.unpacked/` is the content of the archive with that digest;
//! - `pins/<same name>`: locked by its users; its modification time is the time of the last use;
//! - `index/<key>.json`: the result of the last fetch of an address (`key` is its SHA-256);
//! - `partial/<key>/`: a running or broken download;
//! - `locks/<key>`: locked while the address is being fetched.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{entry::Manifest, error::Failure, lock::Lock};

/// How long a broken download is kept to be resumed.
const BROKEN_KEPT: Duration = Duration::from_hours(24 * 7);

/// The cache's folder.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
    limit: u64,
}

/// The result of the last fetch of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    /// The listing at that time: see [`crate::remote::Listing::fingerprint`].
    pub(crate) fingerprint: Option<String>,
    /// For a single file on a web server, the data for a conditional request.
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
    /// The entry of the artefact.
    pub(crate) entry: String,
    /// Increases with each listing of the location: a process that waited for the lock sees that another one has just
    /// listed it.
    pub(crate) looks: u64,
}

/// An item that can be removed.
#[derive(Debug)]
struct Item {
    place: PathBuf,
    lock: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Shelf {
    pub(crate) fn open(dir: &Path, limit: u64) -> io::Result<Self> {
        for folder in ["sha256", "pins", "index", "partial", "locks"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        // Absolute, because processes have different working directories, and served paths must not change.
        let dir = dir.canonicalize()?;
        tempfile::tempfile_in(dir.join("partial"))?;
        let shelf = Self { dir, limit };
        shelf.forget_broken(base::Clock::system().now())?;
        Ok(shelf)
    }

    /// A cache with an unusable folder.
    pub(crate) fn absent(dir: PathBuf, limit: u64) -> Self {
        Self { dir, limit }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn entry(&self, name: &str) -> PathBuf {
        self.dir.join("sha256").join(name)
    }

    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.dir.join("pins").join(name)
    }

    pub(crate) fn lock(&self, key: &str) -> PathBuf {
        self.dir.join("locks").join(key)
    }

    pub(crate) fn partial(&self, key: &str) -> PathBuf {
        self.dir.join("partial").join(key)
    }

    fn index(&self, key: &str) -> PathBuf {
        self.dir.join("index").join(format!("{key}.json"))
    }

    pub(crate) fn known(&self, key: &str) -> Option<Known> {
        serde_json::from_slice(&fs::read(self.index(key)).ok()?).ok()
    }

    pub(crate) fn remember(&self, key: &str, known: &Known) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.dir.join("index"))?;
        io::Write::write_all(&mut file, &serde_json::to_vec(known)?)?;
        file.persist(self.index(key)).map_err(|error| error.error)?;
        Ok(())
    }

    /// The complete artefact with that name, locked and checked; `None` if it is missing, or damaged and therefore
    /// removed. Blocks during the check.
    pub(crate) fn take(&self, name: &str, pin: Lock, every_byte: bool) -> Result<Option<(Manifest, Lock)>, Failure> {
        let place = self.entry(name);
        let Some(manifest) = Manifest::read(&place) else {
            if place.exists() {
                self.discard(name)?;
            }
            return Ok(None);
        };
        if let Err(reason) = manifest.check(&place, every_byte) {
            tracing::warn!(
                artifact = manifest.uri,
                reason,
                "an artefact in the cache was damaged and is fetched again"
            );
            self.discard(name)?;
            return Ok(None);
        }
        // Touches the pin, to record the use.
        fs::write(self.pin(name), b".")?;
        Ok(Some((manifest, pin)))
    }

    /// Puts a complete artefact into the cache under a name that the caller has pinned. If there is an equal one
    /// already, that one stays.
    pub(crate) fn put(&self, staged: &Path, name: &str) -> Result<(), Failure> {
        match fs::rename(staged, self.entry(name)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(remove(staged)?)
            }
            Err(error) => Err(error.into()),
            Ok(()) => Ok(fs::File::open(self.dir.join("sha256"))?.sync_all()?),
        }
    }

    /// Removes an entry even if it is in use: processes with open files keep those.
    fn discard(&self, name: &str) -> io::Result<()> {
        let aside = tempfile::Builder::new().prefix("damaged-").tempdir_in(self.dir.join("partial"))?;
        match fs::rename(self.entry(name), aside.path().join("entry")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the least recently used artefacts until `bytes` more fit, into the limit of the cache and on the disk.
    /// Artefacts in use and the download `but` stay; the bytes that the download has already written count as used.
    pub(crate) fn make_room(&self, bytes: u64, but: &str) -> Result<(), Failure> {
        if bytes > self.limit {
            return Err(too_large(bytes, self.limit));
        }
        let to_write = bytes.saturating_sub(size_below(&self.partial(but)));
        let mut items = self.items(but)?;
        let mut held: u64 = items.iter().map(|item| item.bytes).sum();
        items.sort_by_key(|item| item.used);
        let mut items = items.into_iter();
        loop {
            let fits_on_disk = to_write <= self.free()?;
            if fits_on_disk && held + bytes <= self.limit {
                break;
            }
            let Some(item) = items.next() else {
                if !fits_on_disk {
                    return Err(Failure::Disk(io::ErrorKind::StorageFull.into()));
                }
                let reason = format!(
                    "it needs {bytes} bytes, and {held} of the cache's {} are in use by running models; raise the setting \
                     `limit_bytes` or end some",
                    self.limit
                );
                return Err(Failure::Refused("cache_full", reason));
            };
            if let Some(_lock) = Lock::try_exclusive(&item.lock)? {
                tracing::info!(path = %item.place.display(), bytes = item.bytes, "removing the least recently used artefact");
                remove(&item.place)?;
                held -= item.bytes;
            }
        }
        Ok(self.forget_removed()?)
    }

    /// The free space on the disk, in bytes.
    fn free(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn items(&self, but: &str) -> io::Result<Vec<Item>> {
        let mut items = Vec::new();
        for (folder, locks) in [("sha256", "pins"), ("partial", "locks")] {
            for found in fs::read_dir(self.dir.join(folder))? {
                let found = found?;
                let name = found.file_name();
                if folder == "partial" && name == but {
                    continue;
                }
                let place = found.path();
                let lock = self.dir.join(locks).join(&name);
                // If nobody has locked it, the time of its folder is used.
                let used = [&lock, &place].into_iter().find_map(|path| fs::metadata(path).ok()?.modified().ok());
                let bytes = Manifest::read(&place).map_or_else(|| size_below(&place), |manifest| manifest.bytes());
                items.push(Item { place, lock, bytes, used: used.unwrap_or(SystemTime::UNIX_EPOCH) });
            }
        }
        Ok(items)
    }

    /// Removes downloads that broke long before `now`.
    fn forget_broken(&self, now: SystemTime) -> io::Result<()> {
        for found in fs::read_dir(self.dir.join("partial"))? {
            let found = found?;
            let place = found.path();
            // Each attempt writes it again.
            let tried =
                [&fingerprint(&place), &place].into_iter().find_map(|path| fs::metadata(path).ok()?.modified().ok());
            let is_old = tried.and_then(|tried| now.duration_since(tried).ok()).is_some_and(|age| age > BROKEN_KEPT);
            if is_old && let Some(_lock) = Lock::try_exclusive(&self.dir.join("locks").join(found.file_name()))? {
                tracing::info!(path = %place.display(), "removing an old broken download");
                remove(&place)?;
            }
        }
        Ok(())
    }

    /// Removes index files of entries that no longer exist.
    fn forget_removed(&self) -> io::Result<()> {
        for found in fs::read_dir(self.dir.join("index"))? {
            let path = found?.path();
            let known = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Known>(&text).ok());
            if known.is_some_and(|known| !self.entry(&known.entry).exists()) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// The file that records the source of a running download.
pub(crate) fn fingerprint(partial: &Path) -> PathBuf {
    partial.join("fingerprint")
}

pub(crate) fn too_large(bytes: u64, limit: u64) -> Failure {
    let reason = format!("it has at least {bytes} bytes, and the cache may hold {limit}; the setting is `limit_bytes`");
    Failure::Refused("artifact_too_large", reason)
}

/// The size of the files below a folder. Files that disappear meanwhile count as 0.
pub(crate) fn size_below(folder: &Path) -> u64 {
    let Ok(found) = fs::read_dir(folder) else { return 0 };
    found
        .flatten()
        .map(|item| match item.metadata() {
            Ok(metadata) if metadata.is_dir() => size_below(&item.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Removes a file or a folder that may already be gone.
pub(crate) fn remove(place: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(place),
        Ok(_) => fs::remove_file(place),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
