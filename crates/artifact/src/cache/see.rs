//! Inspects an address without fetching its files.

use tokio::task::spawn_blocking;

use super::Cache;
use crate::{
    Config,
    blocking::blocking,
    digest::digest_of,
    error::{ArtifactError, Failure},
    mlflow,
    place::{Place, resolve, shown},
    remote::{Found, Remote},
};

/// The current content of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address that always finds the same files: with the version of a registered model, if the address did not
    /// determine it.
    pub resolved: String,
    /// The digest of local files.
    pub digest: Option<String>,
    /// For a remote location, a value computed from the names, sizes, ETags and times of its files, which changes
    /// whenever any of them changes. `None` if the location provides nothing to compare.
    pub fingerprint: Option<String>,
}

impl Cache {
    /// Inspects the first of these addresses that has files, without retries, and fetches nothing. Local files are read
    /// completely.
    ///
    /// # Errors
    /// [`ArtifactError`], as in a fetch.
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
