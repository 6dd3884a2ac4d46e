//! A remote location: its files, and their bytes from any position.

mod bucket;
mod file;
mod http;
mod mlflow;

pub(crate) use file::{Body, Found, Listing, RemoteFile};

use crate::{Config, error::Failure, place::Place, shelf::Known};

/// A remote location.
pub(crate) enum Remote {
    Http(http::Http),
    Bucket(bucket::Bucket),
    Mlflow(mlflow::Mlflow),
}

impl Remote {
    /// The client for a location; `None` if it is local.
    pub(crate) fn to(place: &Place, config: &Config) -> Result<Option<Self>, Failure> {
        Ok(match place {
            Place::Local(_) | Place::Mlflow(_) => None,
            Place::Tracked(tracked) => Some(Self::Mlflow(mlflow::Mlflow::new(tracked, config)?)),
            Place::Http(url) => Some(Self::Http(http::Http::new(url.clone(), config)?)),
            Place::Bucket { store, bucket, key } => {
                Some(Self::Bucket(bucket::Bucket::new(*store, bucket, key, config)?))
            }
        })
    }

    /// Lists the current files.
    pub(crate) async fn look(&self, known: Option<&Known>) -> Result<Found, Failure> {
        let found = match self {
            Self::Http(http) => http.look(known).await?,
            Self::Bucket(bucket) => Found::Listing(bucket.look().await?),
            Self::Mlflow(mlflow) => mlflow.look(known).await?,
        };
        Ok(match found {
            Found::Listing(listing)
                if known
                    .is_some_and(|known| known.fingerprint.is_some() && known.fingerprint == listing.fingerprint()) =>
            {
                Found::Unchanged
            }
            found @ (Found::Unchanged | Found::Listing(_)) => found,
        })
    }

    /// Opens a listed file at `offset`.
    pub(crate) async fn open(&self, file: &RemoteFile, offset: u64) -> Result<Body, Failure> {
        match self {
            Self::Http(http) => http.open(file, offset).await,
            Self::Bucket(bucket) => bucket.open(file, offset).await,
            Self::Mlflow(mlflow) => mlflow.open(file, offset).await,
        }
    }
}
