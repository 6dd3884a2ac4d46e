//! Puts complete files into the cache as an artefact, and finds them there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::spawn_blocking;

use super::{
    Cache,
    order::{Fetched, Wanted, agrees, entry_name},
};
use crate::{
    blocking::blocking,
    digest::{hash_file, prefixed},
    entry::{self, Manifest},
    error::Failure,
    lock::Lock,
    place::{Place, shown},
    shelf,
    unpack::{self, Archive, Bounds},
};

/// A cached artefact, locked for use, and its name in the cache.
pub(super) type Held = (Manifest, Lock, String);

impl Cache {
    /// The artefact with that name, if the cache has it and it is undamaged.
    pub(super) async fn held(&self, name: &str, every_byte: bool) -> Result<Option<Held>, Failure> {
        if !self.shelf.entry(name).exists() {
            return Ok(None);
        }
        let pin = Lock::shared(&self.shelf.pin(name)).await?;
        let (shelf, name) = (self.shelf.clone(), name.to_owned());
        blocking(spawn_blocking(move || {
            Ok(shelf.take(&name, pin, every_byte)?.map(|(manifest, pin)| (manifest, pin, name)))
        }))
        .await?
    }

    pub(super) async fn make_room(&self, bytes: u64, but: &str) -> Result<(), Failure> {
        let (shelf, but) = (self.shelf.clone(), but.to_owned());
        blocking(spawn_blocking(move || shelf.make_room(bytes, &but))).await?
    }

    /// Unpacks an archive into the cache, unless its content is there.
    pub(super) async fn unpacked(
        &self,
        wanted: &Wanted<'_>,
        archive: &Path,
        kind: Archive,
        lock: Arc<Lock>,
    ) -> Result<(Fetched, String), Failure> {
        let path = archive.to_owned();
        let hex = blocking(spawn_blocking(move || hash_file(&path))).await??;
        let digest = prefixed(&hex);
        agrees(wanted.digest, &digest)?;
        if let Some((manifest, pin, name)) = self.held(&entry_name(&hex, Some(kind)), false).await? {
            return Ok((self.fetched(wanted, &manifest, pin, &name)?, name));
        }
        let staged = self.shelf.partial(&wanted.key).join("unpacked");
        shelf::remove(&staged)?;
        let bounds = Bounds { bytes: self.config.limit_bytes, entries: self.config.max_files };
        let (archive, into, held) = (archive.to_owned(), entry::content(&staged), Arc::clone(&lock));
        blocking(spawn_blocking(move || {
            // The task may outlive a cancelled call, and nobody else may unpack to the same place at that time.
            let _held = held;
            unpack::unpack(&archive, kind, &into, bounds)
        }))
        .await??;
        self.shelved(wanted, staged, Some(digest), false, lock).await
    }

    /// Checks complete files and puts them into the cache.
    pub(super) async fn shelved(
        &self,
        wanted: &Wanted<'_>,
        staged: PathBuf,
        archive: Option<String>,
        single: bool,
        lock: Arc<Lock>,
    ) -> Result<(Fetched, String), Failure> {
        let kind = archive.as_ref().and(wanted.place.archive());
        let (uri, place) = (shown(wanted.uri), staged.clone());
        let manifest = blocking(spawn_blocking(move || {
            let _held = lock;
            let manifest = Manifest::take(&place, &uri, archive, single)?;
            manifest.write(&place)?;
            Ok::<_, io::Error>(manifest)
        }))
        .await??;
        agrees(wanted.digest, &manifest.digest)?;
        self.make_room(manifest.bytes(), &wanted.key).await?;
        let hex = manifest.digest.strip_prefix("sha256:").unwrap_or(&manifest.digest);
        let name = entry_name(hex, kind);
        let pin = Lock::shared(&self.shelf.pin(&name)).await?;
        self.shelf.put(&staged, &name)?;
        // The cache had an equal but damaged artefact: it was removed, together with ours.
        let (manifest, pin) = self.shelf.take(&name, pin, false)?.ok_or(Failure::Changed)?;
        Ok((self.fetched(wanted, &manifest, pin, &name)?, name))
    }

    pub(super) fn fetched(
        &self,
        wanted: &Wanted<'_>,
        manifest: &Manifest,
        pin: Lock,
        name: &str,
    ) -> Result<Fetched, Failure> {
        agrees(wanted.digest, &manifest.digest)?;
        let content = entry::content(&self.shelf.entry(name));
        let mut path = content.join(&manifest.root);
        if path.is_file()
            && let Some(called) = ending_differs(wanted.place, &path)
        {
            // The same bytes came first under a name without a useful suffix.
            path = content.join(called);
            let linked = fs::hard_link(content.join(&manifest.root), &path);
            linked.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
        }
        let uri = wanted.uri.to_owned();
        let digest = Some(manifest.digest.clone());
        Ok(Fetched { resolved: uri.clone(), uri, digest, fingerprint: None, path, _pin: Some(pin) })
    }
}

/// A name with the suffix of the address, if the name of the file has a different one.
fn ending_differs(place: &Place, path: &Path) -> Option<String> {
    let address = match place {
        Place::Mlflow(_) => return None,
        Place::Local(path) => path.to_str()?,
        Place::Tracked(tracked) => &tracked.path,
        Place::Http(url) => url.path(),
        Place::Bucket { key, .. } => key,
    };
    let ending = Path::new(address).extension()?.to_str()?;
    let plain = ending.bytes().all(|letter| letter.is_ascii_alphanumeric());
    (plain && path.extension().is_none_or(|own| own != ending)).then(|| format!("model.{ending}"))
}
