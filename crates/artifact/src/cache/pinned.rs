//! The artefact of a revision: the files that it began with, whatever happens at their location later.
//!
//! Local files are copied into the cache, because an edit in place would change what a restarted replica serves. If no
//! copy can be made, they are served in place and compared with the digest at each start.

use std::{fs, path::Path, sync::Arc};

use tokio::task::spawn_blocking;

use super::{
    Cache,
    order::{Alone, Fetched, MAX_CHANGES, Order, Pin, Wanted, agrees, entry_name, files_of, hex_digits},
};
use crate::{
    blocking::blocking,
    digest::digest_of,
    entry,
    error::{ArtifactError, Failure},
    lock::Lock,
    place::{Place, shown},
    shelf,
    unpack::Archive,
};

impl Cache {
    /// Fetches the artefact of a revision like [`Cache::fetch`], and copies local files. The result always has a
    /// digest. `alone` returns whether a file or folder is the complete model.
    ///
    /// With `since`, the revision has had `digest` since that time: an equal artefact in the cache is used without
    /// contacting any location, and other files are refused.
    ///
    /// # Errors
    /// As [`Cache::fetch`]; with `since`, [`ArtifactError::Changed`] and [`ArtifactError::Gone`].
    pub async fn fetch_for_revision(
        &self,
        uris: &[String],
        digest: Option<&str>,
        since: Option<&str>,
        alone: fn(&Path) -> bool,
    ) -> Result<Fetched, ArtifactError> {
        let places = self.places(uris)?;
        let digest = hex_digits(uris, digest)?;
        if let (Some(hex), Some(_), Some((uri, place))) = (digest, since, places.first())
            && !is_served_in_place(place, alone).await
        {
            let wanted = Wanted { uri, place, digest, key: self.key(uri, place), alone: None };
            match self.at_hand(&wanted, hex).await {
                Ok(Some(fetched)) => return Ok(fetched),
                Ok(None) => {}
                Err(failure) => {
                    let error = failure.at(&shown(uri), self.shelf.dir());
                    tracing::warn!(%error, "the cache cannot be read");
                }
            }
        }
        self.fetch_from(&places, Order { digest, pin: Some(Pin { since, alone }) }).await
    }

    /// The artefact with this digest, if the cache has it: a file, a folder, or the content of an archive.
    async fn at_hand(&self, wanted: &Wanted<'_>, hex: &str) -> Result<Option<Fetched>, Failure> {
        for name in [entry_name(hex, None), entry_name(hex, Some(Archive::Zip))] {
            if let Some((manifest, pin, name)) = self.held(&name, false).await? {
                return self.fetched(wanted, &manifest, pin, &name).map(Some);
            }
        }
        Ok(None)
    }

    /// Local files, from a copy if one can be made.
    pub(super) async fn keep(&self, wanted: &Wanted<'_>, path: &Path, alone: Alone) -> Result<Fetched, Failure> {
        for _ in 0..MAX_CHANGES {
            let read = path.to_owned();
            let (digest, whole) =
                blocking(spawn_blocking(move || digest_of(&read).map(|digest| (digest, alone(&read))))).await??;
            agrees(wanted.digest, &digest)?;
            if !whole {
                return Ok(wanted.in_place(path.to_owned(), Some(digest)));
            }
            match self.copy(wanted, path, &digest).await {
                Err(Failure::Mismatch { .. } | Failure::Changed) => {}
                Err(failure @ (Failure::Disk(_) | Failure::Refused("cache_full" | "artifact_too_large", _))) => {
                    let error = failure.at(&shown(wanted.uri), self.shelf.dir());
                    tracing::warn!(
                        %error,
                        "cannot keep a copy of the model: if its files change, replicas of this revision cannot restart"
                    );
                    return Ok(wanted.in_place(path.to_owned(), Some(digest)));
                }
                copied => return copied,
            }
        }
        Err(Failure::Changed)
    }

    /// The copy of a file or folder with this digest.
    async fn copy(&self, wanted: &Wanted<'_>, path: &Path, digest: &str) -> Result<Fetched, Failure> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let wanted = &Wanted { digest: Some(hex), key: wanted.key.clone(), ..*wanted };
        if let Some(fetched) = self.at_hand(wanted, hex).await? {
            return Ok(fetched);
        }
        let lock = Arc::new(Lock::exclusive(&self.shelf.lock(&wanted.key)).await?.0);
        if let Some(fetched) = self.at_hand(wanted, hex).await? {
            return Ok(fetched);
        }
        let copied = self.copy_locked(wanted, path, Arc::clone(&lock)).await;
        shelf::remove(&self.shelf.partial(&wanted.key))?;
        copied
    }

    async fn copy_locked(&self, wanted: &Wanted<'_>, path: &Path, lock: Arc<Lock>) -> Result<Fetched, Failure> {
        let read = path.to_owned();
        let files = blocking(spawn_blocking(move || files_of(&read))).await??;
        let most = self.config.max_files;
        if files.len() > most {
            let reason = format!("it has over {most} files; the setting is `max_files`");
            return Err(Failure::Refused("artifact_too_large", reason));
        }
        let bytes = files.iter().filter_map(|(_, file)| Some(fs::metadata(file).ok()?.len())).sum();
        self.make_room(bytes, &wanted.key).await?;
        let staged = self.shelf.partial(&wanted.key).join("entry");
        let (content, held, single) = (entry::content(&staged), Arc::clone(&lock), path.is_file());
        shelf::remove(&staged)?;
        blocking(spawn_blocking(move || {
            let _held = held;
            fs::create_dir_all(&content)?;
            for (name, file) in files {
                let target = content.join(name);
                if let Some(folder) = target.parent() {
                    fs::create_dir_all(folder)?;
                }
                // If a file disappears during the copy, the digest differs, which is detected.
                match fs::copy(file, target) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        }))
        .await??;
        Ok(self.shelved(wanted, staged, None, single, lock).await?.0)
    }
}

/// Whether the files at a location need others next to them, so that they are served in place.
async fn is_served_in_place(place: &Place, alone: Alone) -> bool {
    let Place::Local(path) = place else { return false };
    let path = path.clone();
    let archive = place.archive().is_some();
    let looked = spawn_blocking(move || path.exists() && !(archive && path.is_file()) && !alone(&path));
    blocking(looked).await.unwrap_or(false)
}
