//! Looking at an address without fetching what is there.

use tokio::task::spawn_blocking;

use super::{Cache, blocking};
use crate::{
    Config,
    digest::digest_of,
    error::{ArtifactError, Failure},
    mlflow,
    place::{Place, resolve, shown},
    remote::{Found, Remote},
};

/// What is at an address now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address at which the same files are found again: a version of a registered model where the address left
    /// that open.
    pub resolved: String,
    /// The digest, of files of this machine.
    pub digest: Option<String>,
    /// For other places, a word made of what they say of their files (names, sizes, ETags, times), which differs when
    /// any of that has changed. `None` if a place says nothing to tell by.
    pub fingerprint: Option<String>,
}

impl Cache {
    /// Looks at the first of these addresses that has something, once, and fetches nothing. Files of this machine are
    /// read as a whole.
    ///
    /// # Errors
    /// [`ArtifactError`], as when it is fetched.
    pub async fn see(config: &Config, uris: &[String]) -> Result<Seen, ArtifactError> {
        let mut tried = Vec::new();
        for uri in uris {
            match look(config, uri, &Place::parse(uri, config)?).await {
                Ok(seen) => return Ok(seen),
                Err(Failure::Missing) => tried.push(shown(uri)),
                Err(Failure::Absent(why)) => tried.push(format!("{} ({why})", shown(uri))),
                Err(failure) => return Err(failure.at(&shown(uri), &config.folder())),
            }
        }
        Err(ArtifactError::Missing { tried })
    }
}

async fn look(config: &Config, uri: &str, place: &Place) -> Result<Seen, Failure> {
    let (place, resolved) = match place {
        Place::Mlflow(address) => {
            let meant = mlflow::resolve(address, config).await?;
            let resolved = address.at_version(uri, meant.version);
            (meant.place, resolved)
        }
        Place::Local(_) | Place::Http(_) | Place::Bucket { .. } | Place::Tracked(_) => (place.clone(), uri.to_owned()),
    };
    if let Some(remote) = Remote::to(&place, config)? {
        let fingerprint = match remote.look(None).await? {
            Found::Listing(listing) => listing.fingerprint(),
            Found::Unchanged => None,
        };
        return Ok(Seen { resolved, digest: None, fingerprint });
    }
    let Place::Local(path) = place else { return Err(Failure::Missing) };
    let path = resolve(&path, &config.local_roots)?;
    let digest = blocking(spawn_blocking(move || digest_of(&path))).await??;
    Ok(Seen { resolved, digest: Some(digest), fingerprint: None })
}
