//! Fetches an artefact: from the first location that has one, or from the cache if that is known to be the same.

mod order;
mod pinned;
pub(crate) mod see;
mod shelving;

use std::{fs, io, path::Path, sync::Arc};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::task::spawn_blocking;

pub use order::Fetched;

use self::order::{MAX_CHANGES, Order, Wanted, agrees, entry_name, hex_digits};
use crate::{
    Config,
    blocking::blocking,
    digest::{digest_of, hash_text, prefixed},
    download::{Download, backoff},
    entry,
    error::{ArtifactError, Failure},
    lock::Lock,
    mlflow,
    place::{Place, resolve, shown},
    remote::{Found, Listing, Remote},
    shelf::{self, Known, Shelf},
};

/// Number of files of one artefact that are downloaded at the same time.
const PARALLEL: usize = 4;
/// Number of attempts to reach a location if an earlier artefact of it is in the cache.
const ATTEMPTS_IF_KNOWN: u32 = 2;

/// The cache of artefacts on this machine. Clones are the same cache, and so are all caches with the same folder, in
/// any process.
#[derive(Clone, Debug)]
pub struct Cache {
    shelf: Shelf,
    config: Arc<Config>,
}

impl Cache {
    /// Opens the cache, and creates its folder if it does not exist.
    ///
    /// # Errors
    /// [`ArtifactError::Cache`] if the folder cannot be created or written.
    pub fn open(config: Config) -> Result<Self, ArtifactError> {
        let dir = config.folder();
        let shelf = Shelf::open(&dir, config.limit_bytes).map_err(|source| ArtifactError::Cache { dir, source })?;
        Ok(Self { shelf, config: Arc::new(config) })
    }

    /// Opens the cache for these addresses. If all of them are local files and folders, which are served in place, an
    /// unusable cache is no error.
    ///
    /// # Errors
    /// As [`Cache::open`].
    pub fn open_for(config: Config, uris: &[String]) -> Result<Self, ArtifactError> {
        let in_place = |uri: &String| {
            Place::parse(uri, &config).is_ok_and(|place| matches!(place, Place::Local(_)) && place.archive().is_none())
        };
        match Self::open(config.clone()) {
            Err(error) if uris.iter().all(in_place) => {
                tracing::info!(%error, "the cache is unusable, but not needed");
                Ok(Self { shelf: Shelf::absent(config.folder(), config.limit_bytes), config: Arc::new(config) })
            }
            opened => opened,
        }
    }

    /// Fetches the artefact at the first of these addresses that has one.
    ///
    /// An address is `s3://`, `gs://`, `http(s)://`, `file://`, a plain path, or an MLflow address (`models:/`,
    /// `runs:/`, `mlflow-artifacts:/`), which the MLflow server resolves first. A folder in a bucket includes
    /// everything below it; an archive (`.tar.gz`, `.tgz`, `.tar`, `.zip`) is unpacked. Local files are served in
    /// place. `digest` is `sha256:…` of the file, of the archive's bytes, or of the folder as in [`digest_of`]. If the
    /// cache has the digest, no location is contacted. If no location can be reached, the artefact of the last fetch is
    /// used, and the log says so. Dropping the future ends the download; the next one continues there.
    ///
    /// # Errors
    /// [`ArtifactError`], grouped by what to do next.
    pub async fn fetch(&self, uris: &[String], digest: Option<&str>) -> Result<Fetched, ArtifactError> {
        let places = self.places(uris)?;
        let digest = hex_digits(uris, digest)?;
        self.fetch_from(&places, Order { digest, pin: None }).await
    }

    fn places<'u>(&self, uris: &'u [String]) -> Result<Vec<(&'u str, Place)>, ArtifactError> {
        uris.iter().map(|uri| Ok((uri.as_str(), Place::parse(uri, &self.config)?))).collect()
    }

    async fn fetch_from(&self, places: &[(&str, Place)], order: Order<'_>) -> Result<Fetched, ArtifactError> {
        let mut tried = Vec::new();
        let mut changed = None;
        for (uri, place) in places {
            let failure = match self.try_address(uri, place, order).boxed().await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => failure,
            };
            match (failure, order.pin.and_then(|pin| pin.since)) {
                (Failure::Missing, _) => tried.push(shown(uri)),
                (Failure::Absent(why), _) => tried.push(format!("{} ({why})", shown(uri))),
                // Files appeared at a location that was empty when the revision began; the next location may be the
                // right one.
                (Failure::Mismatch { expected, found }, Some(since)) => {
                    changed.get_or_insert(order::changed(uri, place, (expected, found), since));
                }
                (failure, _) => {
                    let error = failure.at(&shown(uri), self.shelf.dir());
                    if matches!(error, ArtifactError::Unavailable { .. })
                        && let Some(fetched) = self.last_known(places, order).await
                    {
                        tracing::warn!(%error, "serving the artefact of the last fetch");
                        return Ok(fetched);
                    }
                    return Err(error);
                }
            }
        }
        Err(match (changed, order.digest, order.pin.and_then(|pin| pin.since)) {
            (Some(changed), ..) => changed,
            (None, Some(digest), Some(since)) => {
                ArtifactError::Gone { tried, expected: prefixed(digest), since: since.to_owned() }
            }
            (None, ..) => ArtifactError::Missing { tried },
        })
    }

    /// The complete artefact that one of these locations had at the last fetch; nothing is contacted.
    async fn last_known(&self, places: &[(&str, Place)], order: Order<'_>) -> Option<Fetched> {
        for (uri, place) in places {
            let wanted = Wanted { uri, place, digest: order.digest, key: self.key(uri, place), alone: None };
            let Some(known) = self.shelf.known(&wanted.key) else { continue };
            if let Ok(Some((manifest, pin, name))) = self.held(&known.entry, order.digest.is_some()).await
                && let Ok(fetched) = self.fetched(&wanted, &manifest, pin, &name)
            {
                return Some(fetched);
            }
        }
        None
    }

    /// The address as a file name. It includes the server that resolves the address.
    fn key(&self, uri: &str, place: &Place) -> String {
        match place {
            Place::Mlflow(_) => {
                let registry = self.config.registry().unwrap_or_default();
                hash_text(&format!("{} {registry} {uri}", self.config.tracking()))
            }
            Place::Local(_) | Place::Http(_) | Place::Bucket { .. } | Place::Tracked(_) => hash_text(uri),
        }
    }

    async fn try_address(&self, uri: &str, place: &Place, order: Order<'_>) -> Result<Fetched, Failure> {
        let key = self.key(uri, place);
        let (digest, alone) = (order.digest, order.pin.map(|pin| pin.alone));
        let Place::Mlflow(address) = place else {
            return self.try_place(&Wanted { uri, place, digest, key, alone }).await;
        };
        let attempts = self.attempts(self.shelf.known(&key).is_some());
        let meant = self.insist(attempts, || mlflow::resolve(address, &self.config)).await?;
        let wanted = Wanted { uri, place: &meant.place, digest, key: hash_text(&meant.location), alone };
        let mut fetched = self.try_place(&wanted).await?;
        if let Some(known) = self.shelf.known(&wanted.key) {
            // For times when the address cannot be resolved.
            self.shelf.remember(&key, &known)?;
        }
        fetched.resolved = address.at_version(uri, meant.version);
        if let Some(version) = meant.version {
            fetched.uri = format!("{uri} → version {version}");
        }
        tracing::info!(uri, location = meant.location, version = meant.version, "resolved by MLflow");
        Ok(fetched)
    }

    async fn try_place(&self, wanted: &Wanted<'_>) -> Result<Fetched, Failure> {
        let Some(remote) = Remote::to(wanted.place, &self.config)? else { return self.serve_here(wanted).await };
        let mut fetched = self.fetch_elsewhere(wanted, &remote).await?;
        fetched.fingerprint = self.shelf.known(&wanted.key).and_then(|known| known.fingerprint);
        Ok(fetched)
    }

    async fn serve_here(&self, wanted: &Wanted<'_>) -> Result<Fetched, Failure> {
        let Place::Local(path) = wanted.place else { return Err(Failure::Missing) };
        let path = resolve(path, &self.config.local_roots)?;
        if let Some(kind) = wanted.place.archive().filter(|_| path.is_file()) {
            let lock = Arc::new(Lock::exclusive(&self.shelf.lock(&wanted.key)).await?.0);
            let unpacked = self.unpacked(wanted, &path, kind, lock).await;
            shelf::remove(&self.shelf.partial(&wanted.key))?;
            return Ok(unpacked?.0);
        }
        if let Some(alone) = wanted.alone {
            return self.keep(wanted, &path, alone).await;
        }
        let mut digest = None;
        if let Some(expected) = wanted.digest {
            let read = path.clone();
            let found = blocking(spawn_blocking(move || digest_of(&read))).await??;
            agrees(Some(expected), &found)?;
            digest = Some(found);
        }
        Ok(wanted.in_place(path, digest))
    }

    async fn fetch_elsewhere(&self, wanted: &Wanted<'_>, remote: &Remote) -> Result<Fetched, Failure> {
        if let Some(hex) = wanted.digest
            && let Some((manifest, pin, name)) = self.held(&entry_name(hex, wanted.place.archive()), true).await?
        {
            return self.fetched(wanted, &manifest, pin, &name);
        }
        let looks = |known: &Option<Known>| known.as_ref().map_or(0, |known| known.looks);
        let before = looks(&self.shelf.known(&wanted.key));
        let (lock, waited) = Lock::exclusive(&self.shelf.lock(&wanted.key)).await?;
        let lock = Arc::new(lock);
        let known = self.shelf.known(&wanted.key);
        let fresh = waited && looks(&known) != before;
        let mut held = match &known {
            Some(known) => self.held(&known.entry, wanted.digest.is_some()).await?,
            None => None,
        };
        let mut known = known.filter(|_| held.is_some());
        if let Some((manifest, pin, name)) = held.take_if(|_| fresh) {
            return self.fetched(wanted, &manifest, pin, &name);
        }
        for _ in 0..MAX_CHANGES {
            match (self.look(remote, known.as_ref()).await?, held.take(), known.take()) {
                (Found::Unchanged, Some((manifest, pin, name)), Some(known)) => {
                    self.shelf.remember(&wanted.key, &Known { looks: known.looks + 1, ..known })?;
                    return self.fetched(wanted, &manifest, pin, &name);
                }
                (Found::Unchanged, ..) => {}
                (Found::Listing(listing), ..) => {
                    match self.download(wanted, remote, listing, Arc::clone(&lock)).await {
                        // Keeps the partial download, to continue it later.
                        Err(Failure::Broken(reason)) => return Err(Failure::Broken(reason)),
                        outcome => {
                            shelf::remove(&self.shelf.partial(&wanted.key))?;
                            if !matches!(outcome, Err(Failure::Changed)) {
                                return outcome;
                            }
                        }
                    }
                }
            }
        }
        Err(Failure::Changed)
    }

    /// Lists a location; retries if the connection breaks.
    async fn look(&self, remote: &Remote, known: Option<&Known>) -> Result<Found, Failure> {
        self.insist(self.attempts(known.is_some()), || remote.look(known)).await
    }

    /// Number of attempts for a location, with and without an earlier artefact in the cache.
    fn attempts(&self, known: bool) -> u32 {
        if known { ATTEMPTS_IF_KNOWN.min(self.config.attempts) } else { self.config.attempts }
    }

    /// Retries after a delay if the connection breaks.
    async fn insist<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        attempts: u32,
        ask: impl Fn() -> F,
    ) -> Result<T, Failure> {
        let mut failures = 0;
        loop {
            match ask().await {
                Err(Failure::Broken(reason)) => {
                    failures += 1;
                    if failures >= attempts {
                        return Err(Failure::Broken(reason));
                    }
                    tracing::warn!(reason, failures, attempts, "the location of an artefact does not answer; retrying");
                    tokio::time::sleep(backoff(&self.config, failures)).await;
                }
                settled => return settled,
            }
        }
    }

    async fn download(
        &self,
        wanted: &Wanted<'_>,
        remote: &Remote,
        listing: Listing,
        lock: Arc<Lock>,
    ) -> Result<Fetched, Failure> {
        let fingerprint = listing.fingerprint();
        let partial = self.shelf.partial(&wanted.key);
        self.prepare(&partial, fingerprint.as_deref())?;
        self.make_room(listing.bytes(), &wanted.key).await?;
        tracing::info!(
            uri = shown(wanted.uri),
            files = listing.files.len(),
            bytes = listing.bytes(),
            "downloading an artefact"
        );

        let Listing { single, files, mut first } = listing;
        let staged = partial.join("entry");
        let content = entry::content(&staged);
        fs::create_dir_all(&content)?;
        let download = Download { remote, config: &self.config, lock: Arc::clone(&lock) };
        // By index: inside a boxed future, a closure over borrowed files does not compile.
        let each = (0..files.len()).map(|at| {
            let (download, file, first) = (&download, &files[at], first.take());
            let target = file.path.below(&content);
            async move { download.complete(file, &target, first).await }.boxed()
        });
        stream::iter(each).buffer_unordered(PARALLEL).try_collect::<()>().await?;

        let (fetched, name) = match (wanted.place.archive(), files.as_slice()) {
            (Some(kind), [only]) if single => self.unpacked(wanted, &only.path.below(&content), kind, lock).await?,
            _ => self.shelved(wanted, staged, None, single, lock).await?,
        };
        let validators = match files.as_slice() {
            [only] if single => (only.etag.clone(), only.modified.clone()),
            _ => (None, None),
        };
        let looks = self.shelf.known(&wanted.key).map_or(0, |known| known.looks) + 1;
        let known = Known { fingerprint, etag: validators.0, modified: validators.1, entry: name, looks };
        self.shelf.remember(&wanted.key, &known)?;
        Ok(fetched)
    }

    /// Keeps the partial download of the same bytes, and removes all others.
    fn prepare(&self, partial: &Path, fingerprint: Option<&str>) -> io::Result<()> {
        let state = shelf::fingerprint(partial);
        let same = fingerprint.is_some_and(|now| fs::read_to_string(&state).is_ok_and(|then| then == now));
        if !same {
            shelf::remove(partial)?;
        }
        fs::create_dir_all(partial)?;
        fs::write(state, fingerprint.unwrap_or_default())
    }
}
