//! What a revision serves, while the files that it began with are edited, deleted and put back.

use std::{fs, path::Path};

use modelway_artifact::{ArtifactError, Cache, Config, Fetched, digest_of};
use tempfile::TempDir;

use super::{config, folder, names, partial, text};

const SINCE: &str = "2026-11-28T14:00:00Z";

/// A model's folder, and its path as an address.
fn model(folder: &TempDir) -> (std::path::PathBuf, String) {
    let model = folder.path().join("iris");
    fs::create_dir_all(model.join("sub")).expect("it can be made");
    write(&model, "model.onnx", "one");
    write(&model, "sub/labels.txt", "a");
    let path = model.to_str().expect("it is text").to_owned();
    (model, path)
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("it can be written");
}

async fn first(config: &Config, uri: &str) -> Fetched {
    let cache = Cache::open_for(config.clone(), &[uri.to_owned()]).expect("it opens");
    cache.fetch_for_revision(&[uri.to_owned()], None, None, |_| true).await.expect("it is there")
}

async fn again(config: &Config, uri: &str, digest: &Option<String>) -> Result<Fetched, ArtifactError> {
    let cache = Cache::open_for(config.clone(), &[uri.to_owned()]).expect("it opens");
    cache.fetch_for_revision(&[uri.to_owned()], digest.as_deref(), Some(SINCE), |_| true).await
}

#[tokio::test]
async fn a_revision_goes_on_with_a_copy_of_the_files_that_it_began_with() {
    let folder = folder();
    let (model, path) = model(&folder);
    let config = config(&folder);
    let begun = first(&config, &path).await;
    assert_eq!(begun.digest, digest_of(&model).ok());
    assert!(begun.path.starts_with(&config.dir), "{}", begun.path.display());
    assert_eq!(text(&begun.path.join("sub/labels.txt")), "a");
    assert!(partial(&config).is_empty() && names(&config.dir.join("locks")).is_empty());

    write(&model, "model.onnx", "two");
    for _ in 0..2 {
        let same = again(&config, &path, &begun.digest).await.expect("there is a copy");
        assert_eq!((&same.path, text(&same.path.join("model.onnx"))), (&begun.path, "one".to_owned()));
    }
    let next = first(&config, &path).await;
    assert_eq!(text(&next.path.join("model.onnx")), "two");
    assert_ne!(next.digest, begun.digest);
    fs::remove_dir_all(&model).expect("it can be removed");
    again(&config, &path, &begun.digest).await.expect("there is a copy still");
}

#[tokio::test]
async fn without_a_copy_other_files_are_refused_with_what_to_do() {
    let folder = folder();
    let (model, path) = model(&folder);
    let config = config(&folder);
    let begun = first(&config, &path).await;
    drop(begun.path);
    fs::remove_dir_all(config.dir.join("sha256")).expect("somebody empties the cache");
    write(&model, "model.onnx", "two");
    let error = again(&config, &path, &begun.digest).await.expect_err("it has changed");
    let digest = begun.digest.clone().expect("it has one");
    assert_eq!((error.code(), error.may_pass()), ("artifact_changed", false));
    let now = digest_of(&model).expect("it can be read");
    for part in
        [&path, &digest, SINCE, &now, "last modified 20", "`modelway deploy` the model again", "put the old files"]
    {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    write(&model, "model.onnx", "one");
    again(&config, &path, &begun.digest).await.expect("they are back");

    fs::remove_dir_all(config.dir.join("sha256")).expect("somebody empties the cache");
    fs::remove_dir_all(&model).expect("it can be removed");
    let error = again(&config, &path, &begun.digest).await.expect_err("it is gone");
    assert_eq!(error.code(), "artifact_missing");
    assert!(error.to_string().contains(&digest) && error.to_string().contains("are gone"), "{error}");
}

#[tokio::test]
async fn what_comes_to_an_empty_place_later_is_passed_over() {
    let folder = folder();
    let (model, path) = model(&folder);
    let config = config(&folder);
    let places = [format!("{path}/v1"), path.clone()];
    let cache = Cache::open(config.clone()).expect("it opens");
    let begun = cache.fetch_for_revision(&places, None, None, |_| true).await.expect("it is there");
    fs::remove_dir_all(config.dir.join("sha256")).expect("somebody empties the cache");
    // What is below the model changes the model, so that the copy is of the old one only once it is put aside.
    fs::create_dir(folder.path().join("v1")).expect("it can be made");
    write(&folder.path().join("v1"), "model.onnx", "another");
    let places = [folder.path().join("v1").to_str().expect("text").to_owned(), path];
    let same = cache.fetch_for_revision(&places, begun.digest.as_deref(), Some(SINCE), |_| true).await;
    assert_eq!(text(&same.expect("the second place has it").path.join("model.onnx")), "one");
    drop(model);
}

#[tokio::test]
async fn what_cannot_be_copied_is_served_in_place_and_compared() {
    let folder = folder();
    let (model, path) = model(&folder);
    let small = Config { limit_bytes: 2, ..config(&folder) };
    let blocked = Config { dir: model.join("model.onnx"), ..config(&folder) };
    for config in [small, blocked] {
        let begun = first(&config, &path).await;
        assert_eq!(begun.path, model.canonicalize().expect("it is there"));
        again(&config, &path, &begun.digest).await.expect("it is the same");
        write(&model, "sub/labels.txt", "b");
        let error = again(&config, &path, &begun.digest).await.expect_err("it has changed");
        assert_eq!(error.code(), "artifact_changed");
        write(&model, "sub/labels.txt", "a");
    }
}

#[tokio::test]
async fn a_file_that_needs_others_beside_it_is_served_in_place() {
    let folder = folder();
    let (model, _) = model(&folder);
    let config = config(&folder);
    let file = model.join("model.onnx");
    let uris = [file.to_str().expect("text").to_owned()];
    let cache = Cache::open(config.clone()).expect("it opens");
    let fetched = cache.fetch_for_revision(&uris, None, None, |_| false).await.expect("it is there");
    assert_eq!(
        (fetched.path, fetched.digest.clone()),
        (file.canonicalize().expect("it is there"), digest_of(&file).ok())
    );
    write(&model, "model.onnx", "two");
    let error = cache.fetch_for_revision(&uris, fetched.digest.as_deref(), Some(SINCE), |_| false).await;
    assert_eq!(error.expect_err("it has changed").code(), "artifact_changed");

    let whole = cache.fetch_for_revision(&uris, None, None, |_| true).await.expect("it is there");
    assert_eq!((whole.path.file_name(), text(&whole.path)), (file.file_name(), "two".to_owned()));
}

#[tokio::test]
async fn many_replicas_that_start_at_once_share_one_copy() {
    let folder = folder();
    let (_, path) = model(&folder);
    let config = config(&folder);
    let all = futures::future::join_all((0..8).map(|_| first(&config, &path))).await;
    assert!(all.windows(2).all(|two| two[0].path == two[1].path));
    assert_eq!(names(&config.dir.join("sha256")).len(), 1);
}
