//! Files that an MLflow tracking server provides itself.
//!
//! The server lists names and sizes, but nothing to distinguish two files of one size: its headers (`ETag`,
//! `Last-Modified`) may describe a copy that it made for this request. So the fingerprint of a folder also includes the
//! text of its `MLmodel`, which contains the model's own id and the time of logging.

use std::{collections::VecDeque, time::Duration};

use reqwest::header::CONTENT_RANGE;
use serde::{Deserialize, Deserializer};

use super::file::{Body, Found, Listing, RemoteFile};
use crate::{
    Config, digest,
    error::Failure,
    mlflow::{Server, address::Tracked},
    relative::RelativePath,
    shelf::Known,
};

/// Maximum size of the `MLmodel` that is read for the fingerprint, in bytes.
const MAX_DESCRIPTION: usize = 1 << 20;

pub(crate) struct Mlflow {
    server: Server,
    tracked: Tracked,
    max_files: usize,
    idle: Duration,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    files: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    /// Relative to the requested folder.
    path: String,
    #[serde(default)]
    is_dir: bool,
    #[serde(default, deserialize_with = "size")]
    file_size: Option<u64>,
}

/// A number, possibly as text: protocol buffers write long numbers as text.
fn size<'d, D: Deserializer<'d>>(given: D) -> Result<Option<u64>, D::Error> {
    let value = serde_json::Value::deserialize(given)?;
    Ok(value.as_u64().or_else(|| value.as_str()?.parse().ok()))
}

impl Mlflow {
    pub(crate) fn new(tracked: &Tracked, config: &Config) -> Result<Self, Failure> {
        let server = Server::tracking(config)?.moved(&tracked.server);
        let idle = Duration::from_millis(config.idle_timeout_ms);
        Ok(Self { server, tracked: tracked.clone(), max_files: config.max_files, idle })
    }

    pub(crate) async fn look(&self, known: Option<&Known>) -> Result<Found, Failure> {
        if known.is_some() && self.tracked.is_final() {
            return Ok(Found::Unchanged);
        }
        let mut files = self.files().await?;
        let single = files.is_empty();
        if single {
            files.push(self.only().await?);
        }
        let place = files.iter().position(|file| file.path.as_str() == "MLmodel");
        if let Some(file) = place.and_then(|place| files.get_mut(place)) {
            file.etag = Some(self.description(file).await?);
        }
        Ok(Found::Listing(Listing { single, files, first: None }))
    }

    /// All files below the folder.
    async fn files(&self) -> Result<Vec<RemoteFile>, Failure> {
        let mut files = Vec::new();
        let mut folders = VecDeque::from([String::new()]);
        let mut seen = 0;
        while let Some(folder) = folders.pop_front() {
            for item in self.page(&join(&self.tracked.path, &folder)).await? {
                seen += 1;
                if seen > self.max_files {
                    let reason = format!("it has over {} files; the setting is `max_files`", self.max_files);
                    return Err(Failure::Refused("artifact_too_large", reason));
                }
                let name = join(&folder, &item.path);
                if item.is_dir {
                    folders.push_back(name);
                } else {
                    files.push(self.described(&name, &name, item.file_size)?);
                }
            }
        }
        Ok(files)
    }

    /// The single file at the path, found in the listing of its folder.
    async fn only(&self) -> Result<RemoteFile, Failure> {
        let (folder, name) = self.tracked.path.rsplit_once('/').unwrap_or(("", &self.tracked.path));
        let items = self.page(folder).await?;
        let item = items.into_iter().find(|item| !item.is_dir && item.path == name).ok_or(Failure::Missing)?;
        self.described("", name, item.file_size)
    }

    async fn page(&self, path: &str) -> Result<Vec<Item>, Failure> {
        match self.server.list::<Page>(path).await? {
            Ok(page) => Ok(page.files),
            Err(complaint) if complaint.is_absence() => Ok(Vec::new()),
            Err(complaint) => Err(Failure::Refused(
                "artifact_refused",
                format!(
                    "the MLflow server {} says {}: {}",
                    self.server.shown(),
                    complaint.error_code,
                    complaint.message
                ),
            )),
        }
    }

    fn described(&self, below: &str, name: &str, size: Option<u64>) -> Result<RemoteFile, Failure> {
        let path = RelativePath::parse(name).map_err(|reason| {
            Failure::Refused("artifact_unsafe", format!("its file {name:?} cannot be used: {reason}"))
        })?;
        // Listings are compared by size; a file is what its folder listed.
        let modified = Some("listed".to_owned());
        Ok(RemoteFile { path, key: join(&self.tracked.path, below), size, etag: None, modified })
    }

    /// The digest of a model's description.
    async fn description(&self, file: &RemoteFile) -> Result<String, Failure> {
        let mut body = self.open(file, 0).await?;
        let mut text = Vec::new();
        while let Some(chunk) = body.next().await {
            text.extend_from_slice(&chunk.map_err(Failure::Broken)?);
            if text.len() > MAX_DESCRIPTION {
                let reason = format!("its MLmodel has over {} MiB", MAX_DESCRIPTION >> 20);
                return Err(Failure::Refused("artifact_too_large", reason));
            }
        }
        Ok(digest::hash_text(&String::from_utf8_lossy(&text)))
    }

    pub(crate) async fn open(&self, file: &RemoteFile, offset: u64) -> Result<Body, Failure> {
        let response = self.server.open(&file.key, offset).await?;
        let begins = if response.status() == reqwest::StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
            let whole = file.size.map_or_else(|| "*".to_owned(), |size| size.to_string());
            if !range.starts_with(&format!("bytes {offset}-")) || !range.ends_with(&format!("/{whole}")) {
                return Err(Failure::Broken(format!(
                    "requested bytes from {offset} of {whole}, but it sends {range:?}"
                )));
            }
            offset
        } else {
            0
        };
        Ok(Body::new(begins, response.bytes_stream(), self.idle))
    }
}

/// Two parts of a path; each may be empty.
fn join(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", only) | (only, "") => only.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}
