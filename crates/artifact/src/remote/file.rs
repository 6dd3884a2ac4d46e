//! The files at a place elsewhere, and their bytes.

use std::time::Duration;

use base::error::chain;
use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};

use crate::{digest, relative::RelativePath};

/// One file at a location.
#[derive(Clone, Debug)]
pub(crate) struct RemoteFile {
    /// Its path within the artefact.
    pub(crate) path: RelativePath,
    /// Its name at the location, if the location has several files.
    pub(crate) key: String,
    /// Its length, if the location provides it.
    pub(crate) size: Option<u64>,
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
}

/// The files at a location.
pub(crate) struct Listing {
    /// Whether the address refers to one file; otherwise it refers to a folder.
    pub(crate) single: bool,
    pub(crate) files: Vec<RemoteFile>,
    /// The bytes of the single file, if the listing already opened them.
    pub(crate) first: Option<Body>,
}

/// The result of listing a location.
pub(crate) enum Found {
    /// What was known.
    Unchanged,
    Listing(Listing),
}

/// The bytes of a file from `offset` to its end.
pub(crate) struct Body {
    /// The requested offset, or 0 if the location cannot start elsewhere.
    pub(crate) offset: u64,
    stream: BoxStream<'static, Result<Bytes, String>>,
    idle: Duration,
}

impl Body {
    pub(super) fn new<E: std::error::Error + 'static>(
        offset: u64,
        stream: impl futures::Stream<Item = Result<Bytes, E>> + Send + 'static,
        idle: Duration,
    ) -> Self {
        Self { offset, stream: stream.map(|chunk| chunk.map_err(|error| chain(&error))).boxed(), idle }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        let silent = format!("no data arrived for {} s", self.idle.as_secs_f32());
        tokio::time::timeout(self.idle, self.stream.next()).await.unwrap_or_else(|_| Some(Err(silent)))
    }
}

impl Listing {
    /// A value that changes whenever anything there changes; `None` if the location provides nothing to compare.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        let mut lines = Vec::new();
        for file in &self.files {
            if file.etag.is_none() && file.modified.is_none() {
                return None;
            }
            lines.push(format!("{:?} {:?} {:?} {:?}\n", file.path.as_str(), file.size, file.etag, file.modified));
        }
        lines.sort_unstable();
        Some(digest::hash_text(&lines.concat()))
    }

    /// The total size, as far as the location provides it.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add)
    }
}
