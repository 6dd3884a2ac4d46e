//! Unpacks untrusted archives.
//!
//! Every name is checked before anything is written. Devices are refused. No symbolic links are created: a link to a
//! file of the same archive becomes that file (as a hard link, after all files exist); any other link is refused. So no
//! written path ever passes through something that the archive chose.

use std::{
    cell::Cell,
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use tar::EntryType;

use crate::{error::Failure, relative::RelativePath};

/// Maximum size of a header and its extensions (long names, PAX records): far above what any packer writes, and far
/// below what would be harmful, because they are read into memory.
const MAX_HEADERS: u64 = 1 << 20;

/// This many consecutive zeros become a hole in the file.
const HOLE: usize = 1 << 12;

/// The supported kinds of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Archive {
    Tar,
    TarGz,
    Zip,
}

impl Archive {
    /// The kind for the suffix of a file name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        [(".tar.gz", Self::TarGz), (".tgz", Self::TarGz), (".tar", Self::Tar), (".zip", Self::Zip)]
            .into_iter()
            .find_map(|(ending, kind)| name.ends_with(ending).then_some(kind))
    }
}

/// The limits of the unpacked content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) entries: usize,
}

/// Unpacks `archive` into the new folder `into`. Blocks. On failure, the unpacked files remain there.
pub(crate) fn unpack(archive: &Path, kind: Archive, into: &Path, bounds: Bounds) -> Result<(), Failure> {
    fs::create_dir_all(into)?;
    let file = File::open(archive)?;
    let mut sink = Sink { into, bounds, links: Vec::new(), targets: HashMap::new() };
    match kind {
        Archive::Tar => untar(io::BufReader::new(file), &mut sink)?,
        Archive::TarGz => untar(flate2::read::MultiGzDecoder::new(file), &mut sink)?,
        Archive::Zip => unzip(file, &mut sink)?,
    }
    sink.finish()
}

/// Receives entries: checks and counts them.
struct Sink<'a> {
    into: &'a Path,
    bounds: Bounds,
    /// Links in the order of the archive, and the target of each.
    links: Vec<RelativePath>,
    targets: HashMap<RelativePath, RelativePath>,
}

impl Sink<'_> {
    /// The path of an entry; `None` for the root of the archive (`./`).
    fn admit(&mut self, name: &[u8]) -> Result<Option<RelativePath>, Failure> {
        self.bounds.entries = self.bounds.entries.checked_sub(1).ok_or_else(|| {
            Failure::Refused(
                "artifact_too_large",
                "the archive has too many entries; the setting is `max_files`".into(),
            )
        })?;
        let shown = String::from_utf8_lossy(name).into_owned();
        let name = std::str::from_utf8(name).map_err(|_| unsafe_entry(&shown, "its name is not UTF-8"))?;
        if !name.is_empty() && name.split('/').all(|segment| matches!(segment, "" | ".")) && !name.starts_with('/') {
            return Ok(None);
        }
        RelativePath::parse(name).map(Some).map_err(|reason| unsafe_entry(&shown, &reason))
    }

    fn folder(&self, path: &RelativePath) -> Result<(), Failure> {
        fs::create_dir_all(path.below(self.into)).map_err(|error| clash(path, error))
    }

    fn file(&mut self, path: &RelativePath, content: &mut impl Read) -> Result<(), Failure> {
        let place = path.below(self.into);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(|error| clash(path, error))?;
        }
        let mut file = File::create_new(&place).map_err(|error| clash(path, error))?;
        let mut buffer = vec![0; 1 << 17];
        let mut ends_in_hole = false;
        loop {
            let read = content.read(&mut buffer).map_err(|error| corrupt(&error))?;
            if read == 0 {
                if ends_in_hole {
                    let length = file.stream_position()?;
                    file.set_len(length)?;
                }
                return Ok(());
            }
            self.count(read as u64, path)?;
            // A sparse file in an archive stays sparse: its zeros use no disk space.
            ends_in_hole = read >= HOLE && buffer[..read].iter().all(|byte| *byte == 0);
            if ends_in_hole {
                let length = i64::try_from(read).map_err(io::Error::other)?;
                file.seek(SeekFrom::Current(length))?;
            } else {
                file.write_all(&buffer[..read])?;
            }
        }
    }

    /// Counts bytes that an entry takes.
    fn count(&mut self, bytes: u64, path: &RelativePath) -> Result<(), Failure> {
        self.bounds.bytes = self.bounds.bytes.checked_sub(bytes).ok_or_else(|| {
            let reason = format!(
                "unpacked, it is larger than the cache may be (at {}); the setting is `limit_bytes`",
                path.as_str()
            );
            Failure::Refused("artifact_too_large", reason)
        })?;
        Ok(())
    }

    fn link(&mut self, path: RelativePath, target: Result<RelativePath, String>) -> Result<(), Failure> {
        let target = target.map_err(|reason| unsafe_entry(path.as_str(), &format!("it is a link, and {reason}")))?;
        if self.targets.insert(path.clone(), target).is_some() {
            return Err(clash(&path, io::ErrorKind::AlreadyExists.into()));
        }
        self.links.push(path);
        Ok(())
    }

    /// Creates the links as the files that they refer to, possibly through other links.
    fn finish(mut self) -> Result<(), Failure> {
        for link in std::mem::take(&mut self.links) {
            // The links on the way to a file; the last one is created first.
            let mut way = vec![link];
            while let Some(target) = way.last().and_then(|link| self.targets.remove(link)) {
                if !self.targets.contains_key(&target) {
                    self.copy_back(&way, target)?;
                    break;
                }
                way.push(target);
            }
        }
        Ok(())
    }

    /// Creates the links in `way` as files; the last link refers to `file`.
    fn copy_back(&mut self, way: &[RelativePath], mut file: RelativePath) -> Result<(), Failure> {
        for link in way.iter().rev() {
            let meant = file.below(self.into);
            if !meant.is_file() {
                let reason = format!("it is a link to {}, which is no file of this archive", file.as_str());
                return Err(unsafe_entry(link.as_str(), &reason));
            }
            let place = link.below(self.into);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).map_err(|error| clash(link, error))?;
            }
            match fs::hard_link(&meant, &place) {
                // A file system limits the number of hard links of one file.
                Err(error) if error.kind() == io::ErrorKind::TooManyLinks => {
                    self.count(meant.metadata()?.len(), link)?;
                    fs::copy(&meant, &place).map_err(|error| clash(link, error))?;
                }
                made => made.map_err(|error| clash(link, error))?,
            }
            file = link.clone();
        }
        Ok(())
    }
}

fn unsafe_entry(name: &str, reason: &str) -> Failure {
    Failure::Refused(
        "artifact_unsafe",
        format!("its entry {name:?} cannot be unpacked: {reason}; pack it again without it"),
    )
}

fn corrupt(error: &dyn std::fmt::Display) -> Failure {
    Failure::Refused("artifact_corrupt", format!("the archive cannot be read: {error}; publish it again"))
}

fn clash(path: &RelativePath, error: io::Error) -> Failure {
    if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) {
        unsafe_entry(path.as_str(), "the archive has another entry of that name")
    } else {
        Failure::Disk(error)
    }
}

/// Passes a budget of bytes and then fails; the budget can be refilled from outside.
struct Metered<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a header is too large"));
        }
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

fn untar(content: impl Read, sink: &mut Sink<'_>) -> Result<(), Failure> {
    let left = Cell::new(MAX_HEADERS);
    let mut archive = tar::Archive::new(Metered { inner: content, left: &left });
    let mut entries = archive.entries().map_err(|error| corrupt(&error))?;
    loop {
        // Between two entries only headers are read; the sink counts the bytes of an entry.
        left.set(MAX_HEADERS);
        let Some(entry) = entries.next() else { return Ok(()) };
        let mut entry = entry.map_err(|error| corrupt(&error))?;
        left.set(u64::MAX);
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            skip(&mut entry)?;
            continue;
        }
        let name = entry.path_bytes().into_owned();
        let Some(path) = sink.admit(&name)? else { continue };
        #[allow(clippy::wildcard_enum_match_arm, reason = "whatever else a kind of entry may be, it is refused")]
        match kind {
            EntryType::Directory => sink.folder(&path)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => sink.file(&path, &mut entry)?,
            EntryType::Symlink => {
                let target = link_target(&entry)?;
                let meant = path.link(&target);
                sink.link(path, meant)?;
            }
            EntryType::Link => {
                let target = link_target(&entry)?;
                sink.link(path, RelativePath::parse(&target))?;
            }
            other => {
                let reason = format!("it is neither a file nor a folder (type {:?})", char::from(other.as_byte()));
                return Err(unsafe_entry(&String::from_utf8_lossy(&name), &reason));
            }
        }
        skip(&mut entry)?;
    }
}

/// Reads the rest of an entry, so that the next header follows.
fn skip(entry: &mut impl Read) -> Result<(), Failure> {
    io::copy(entry, &mut io::sink()).map(drop).map_err(|error| corrupt(&error))
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, Failure> {
    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
    String::from_utf8(target)
        .map_err(|_| unsafe_entry(&String::from_utf8_lossy(&entry.path_bytes()), "its target is not UTF-8"))
}

fn unzip(file: File, sink: &mut Sink<'_>) -> Result<(), Failure> {
    let mut archive = zip::ZipArchive::new(file).map_err(|error| corrupt(&error))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| corrupt(&error))?;
        let name = entry.name_raw().to_vec();
        let Some(path) = sink.admit(&name)? else { continue };
        if entry.is_symlink() {
            let mut target = String::new();
            entry.by_ref().take(4096).read_to_string(&mut target).map_err(|error| corrupt(&error))?;
            let meant = path.link(&target);
            sink.link(path, meant)?;
        } else if entry.is_dir() {
            sink.folder(&path)?;
        } else {
            sink.file(&path, &mut entry)?;
        }
    }
    Ok(())
}
