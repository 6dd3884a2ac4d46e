//! One artefact in the cache: its files, and the manifest that is checked at each use.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::digest;

const MANIFEST: &str = "manifest.json";
const CONTENT: &str = "content";

/// The content of a complete artefact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Its source, without secrets.
    pub(crate) uri: String,
    /// The digest that its publisher knows: of the file, the archive, or the folder.
    pub(crate) digest: String,
    /// What is served, below `content`: the name of the only file, a folder, or empty for everything.
    pub(crate) root: String,
    files: Vec<Kept>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    path: String,
    bytes: u64,
    sha256: String,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, i64),
}

/// The location of the files of an entry.
pub(crate) fn content(entry: &Path) -> PathBuf {
    entry.join(CONTENT)
}

impl Manifest {
    /// Records the complete files of `entry`, and syncs them to disk. Reads everything; blocks.
    ///
    /// `archive` is the digest of the archive that they were unpacked from; `single` means that it is a single file.
    pub(crate) fn take(entry: &Path, uri: &str, archive: Option<String>, single: bool) -> io::Result<Self> {
        let content = content(entry);
        let mut files = Vec::new();
        for (path, place) in digest::files_below(&content)? {
            let sha256 = digest::hash_file(&place)?;
            File::open(&place)?.sync_all()?;
            let now = fs::metadata(&place)?;
            files.push(Kept { path, bytes: now.len(), sha256, modified: (now.mtime(), now.mtime_nsec()) });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let digest = match (&archive, single, files.first()) {
            (Some(digest), ..) => digest.clone(),
            (None, true, Some(file)) => digest::prefixed(&file.sha256),
            _ => digest::of_files(files.iter().map(|file| (file.sha256.as_str(), file.path.as_str()))),
        };
        let root = match (&archive, files.first()) {
            (None, Some(file)) if single => file.path.clone(),
            (Some(_), Some(_)) => only_folder(&files).unwrap_or_default(),
            _ => String::new(),
        };
        Ok(Self { uri: uri.to_owned(), digest, root, files })
    }

    /// The total size of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(crate) fn write(&self, entry: &Path) -> io::Result<()> {
        let file = entry.join(MANIFEST);
        fs::write(&file, serde_json::to_vec(self)?)?;
        File::open(file)?.sync_all()
    }

    /// The manifest of an entry; `None` if it is missing or unreadable.
    pub(crate) fn read(entry: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(entry.join(MANIFEST)).ok()?).ok()
    }

    /// Whether the files are unchanged: by size and time, or by every byte. Blocks.
    pub(crate) fn check(&self, entry: &Path, every_byte: bool) -> Result<(), String> {
        let content = content(entry);
        for file in &self.files {
            let place = content.join(&file.path);
            let now = fs::symlink_metadata(&place).map_err(|error| format!("{}: {error}", file.path))?;
            if !now.is_file() || now.len() != file.bytes {
                return Err(format!("{} has {} bytes instead of {}", file.path, now.len(), file.bytes));
            }
            let touched = (now.mtime(), now.mtime_nsec()) != file.modified;
            if every_byte || touched {
                let sha256 = digest::hash_file(&place).map_err(|error| format!("{}: {error}", file.path))?;
                if sha256 != file.sha256 {
                    return Err(format!("{} was changed", file.path));
                }
            }
        }
        Ok(())
    }
}

/// The only folder of an archive, if it directly contains files: `tar czf iris.tgz iris/` means the files in `iris`. A
/// folder of folders is a repository of models and is not changed.
fn only_folder(files: &[Kept]) -> Option<String> {
    let (first, _) = files.first()?.path.split_once('/')?;
    let below: Vec<_> =
        files.iter().map(|file| file.path.strip_prefix(first)?.strip_prefix('/')).collect::<Option<_>>()?;
    below.iter().any(|path| !path.contains('/')).then(|| first.to_owned())
}
