//! The cache before a real web server, a real S3, real archives, and other processes.

#[path = "cache/archives.rs"]
mod archives;
#[path = "cache/http.rs"]
mod http;
#[path = "cache/local.rs"]
mod local;
#[path = "cache/mlflow.rs"]
mod mlflow;
#[path = "cache/pinned.rs"]
mod pinned;
#[path = "cache/s3.rs"]
mod s3;
#[path = "cache/server.rs"]
mod server;
#[path = "cache/shelf.rs"]
mod shelf;

use std::path::Path;

use modelway_artifact::{ArtifactError, Cache, Config, Fetched};
use tempfile::TempDir;

/// A cache in a folder of its own, which tries twice at short intervals.
fn config(folder: &TempDir) -> Config {
    Config { dir: folder.path().join("cache"), attempts: 2, backoff_ms: 1, idle_timeout_ms: 5_000, ..Config::default() }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

async fn fetch(config: &Config, uri: &str) -> Result<Fetched, ArtifactError> {
    Cache::open(config.clone()).expect("it opens").fetch(&[uri.to_owned()], None).await
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is left of downloads that did not become artefacts.
fn partial(config: &Config) -> Vec<String> {
    names(&config.dir.join("partial"))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("it is a folder")
        .map(|item| item.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
