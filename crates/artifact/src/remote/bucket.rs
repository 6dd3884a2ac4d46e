//! Objects in S3 or Google Cloud Storage: a single object, or all objects below a folder.
//!
//! Credentials, region and endpoint come from the environment variables of the stores' own tools: `AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_SKIP_SIGNATURE=true` for public buckets;
//! `GOOGLE_SERVICE_ACCOUNT`, `GOOGLE_SKIP_SIGNATURE`.

use std::{collections::HashSet, sync::Arc, time::Duration};

use base::error::chain;
use futures::TryStreamExt as _;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    gcp::GoogleCloudStorageBuilder,
    path::Path,
};

use super::file::{Body, Listing, RemoteFile};
use crate::{Config, error::Failure, place::Store, relative::RelativePath};

pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    key: Path,
    folder_only: bool,
    max_files: usize,
    idle: Duration,
}

impl Bucket {
    pub(crate) fn new(store: Store, bucket: &str, key: &str, config: &Config) -> Result<Self, Failure> {
        base::client::install_crypto();
        let path = Path::parse(key).map_err(|error| {
            Failure::Refused("artifact_refused", format!("its key cannot be used: {}", chain(&error)))
        })?;
        let idle = Duration::from_millis(config.idle_timeout_ms);
        // Retries are done by the caller, so that each is counted once.
        let retry = RetryConfig { max_retries: 0, retry_timeout: idle, ..RetryConfig::default() };
        let client = ClientOptions::new().with_connect_timeout(base::client::CONNECT_TIMEOUT).with_timeout_disabled();
        let built: Result<Arc<dyn ObjectStore>, _> = match store {
            Store::S3 => {
                let builder = AmazonS3Builder::from_env();
                // Without TLS only on loopback, or if AWS_ALLOW_HTTP allows it.
                let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
                    .iter()
                    .find_map(|key| builder.get_config_value(key));
                let local = endpoint.is_some_and(|endpoint| is_plain_loopback(&endpoint));
                let builder = builder.with_client_options(client).with_retry(retry).with_bucket_name(bucket);
                let builder = if local { builder.with_allow_http(true) } else { builder };
                builder.build().map(|store| Arc::new(store) as _)
            }
            Store::Gcs => GoogleCloudStorageBuilder::from_env()
                .with_client_options(client)
                .with_retry(retry)
                .with_bucket_name(bucket)
                .build()
                .map(|store| Arc::new(store) as _),
        };
        let store = built.map_err(|error| failure(&error))?;
        Ok(Self {
            store,
            key: path,
            folder_only: key.ends_with('/') || key.is_empty(),
            max_files: config.max_files,
            idle,
        })
    }

    pub(crate) async fn look(&self) -> Result<Listing, Failure> {
        let mut objects: Vec<ObjectMeta> = Vec::new();
        let mut pages = self.store.list(Some(&self.key));
        while let Some(object) = within(self.idle, pages.try_next()).await? {
            if objects.len() > self.max_files {
                let reason = format!("it has over {} objects; the setting is `max_files`", self.max_files);
                return Err(Failure::Refused("artifact_too_large", reason));
            }
            objects.push(object);
        }
        drop(pages);
        let files = self.files(&objects)?;
        if !files.is_empty() {
            return Ok(Listing { single: false, files, first: None });
        }
        if self.folder_only {
            return Err(Failure::Missing);
        }
        let object = within(self.idle, self.store.head(&self.key)).await?;
        let name = self.key.filename().unwrap_or("model");
        Ok(Listing { single: true, files: vec![described(&object, name)?], first: None })
    }

    /// The objects as files. Consoles create empty objects for folders: these are skipped.
    fn files(&self, objects: &[ObjectMeta]) -> Result<Vec<RemoteFile>, Failure> {
        let folders: HashSet<&str> = objects.iter().flat_map(|object| folders_of(object.location.as_ref())).collect();
        let mut files = Vec::new();
        for object in objects {
            let marks_folder = object.location == self.key || folders.contains(object.location.as_ref());
            if object.size == 0 && marks_folder {
                continue;
            }
            let whole = object.location.as_ref();
            let name = whole.strip_prefix(self.key.as_ref()).unwrap_or(whole).trim_start_matches('/');
            files.push(described(object, name)?);
        }
        Ok(files)
    }

    pub(crate) async fn open(&self, file: &RemoteFile, offset: u64) -> Result<Body, Failure> {
        let place = Path::parse(&file.key).map_err(|error| Failure::broken(&error))?;
        let options = GetOptions {
            range: (offset > 0).then_some(GetRange::Offset(offset)),
            if_match: file.etag.clone(),
            ..GetOptions::default()
        };
        let got = within(self.idle, self.store.get_opts(&place, options)).await?;
        if Some(got.meta.size) != file.size {
            return Err(Failure::Changed);
        }
        let begins = got.range.start;
        Ok(Body::new(begins, got.into_stream(), self.idle))
    }
}

async fn within<T>(idle: Duration, asked: impl Future<Output = Result<T, object_store::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(idle, asked).await {
        Ok(answer) => answer.map_err(|error| failure(&error)),
        Err(_) => Err(Failure::Broken(format!("no answer for {} s", idle.as_secs_f32()))),
    }
}

/// The folders of an object.
fn folders_of(key: &str) -> impl Iterator<Item = &str> {
    key.match_indices('/').map(|(at, _)| &key[..at])
}

fn described(object: &ObjectMeta, name: &str) -> Result<RemoteFile, Failure> {
    let path = RelativePath::parse(name).map_err(|reason| {
        Failure::Refused("artifact_unsafe", format!("its object {name:?} cannot be used: {reason}"))
    })?;
    Ok(RemoteFile {
        path,
        key: object.location.to_string(),
        size: Some(object.size),
        etag: object.e_tag.clone(),
        modified: Some(object.last_modified.to_rfc3339()),
    })
}

fn is_plain_loopback(endpoint: &str) -> bool {
    url::Url::parse(endpoint).is_ok_and(|url| {
        url.scheme() == "http"
            && url
                .host_str()
                .is_some_and(|host| base::net::is_loopback(&format!("{host}:{}", url.port().unwrap_or(80))))
    })
}

/// The kind of failure of a response from the store.
fn failure(error: &object_store::Error) -> Failure {
    use object_store::Error;
    let reason = brief(error);
    // Listing wraps every response in `Generic`, where the status is only in its text.
    let status = |code: u16| chain(error).contains(&format!("status code: {code}"));
    let generic = matches!(error, Error::Generic { .. });
    if matches!(error, Error::NotFound { .. }) || (generic && status(404)) {
        Failure::Missing
    } else if matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
        || (generic && (status(401) || status(403)))
    {
        let advice = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or GOOGLE_SERVICE_ACCOUNT) and their rights";
        Failure::Refused("artifact_denied", format!("{reason}; {advice}"))
    } else if matches!(error, Error::InvalidPath { .. }) {
        Failure::Refused("artifact_unsafe", format!("an object's name cannot be used: {reason}; rename it"))
    } else if matches!(error, Error::Precondition { .. } | Error::NotModified { .. }) {
        Failure::Changed
    } else if matches!(
        error,
        Error::UnknownConfigurationKey { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. }
    ) {
        Failure::Refused("artifact_refused", reason)
    } else {
        Failure::Broken(reason)
    }
}

/// The first words of an error: stores respond with documents.
fn brief(error: &object_store::Error) -> String {
    const MOST: usize = 300;
    let words = chain(error).split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}
