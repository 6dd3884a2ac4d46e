//! Artefacts on this machine.

use modelway_artifact::{Cache, Config, digest_of};

use super::{config, fetch, folder, text};

#[tokio::test]
async fn local_files_are_served_in_place_and_checked_if_a_digest_is_given() {
    let folder = folder();
    let model = folder.path().join("iris");
    std::fs::create_dir(&model).expect("it can be made");
    std::fs::write(model.join("model.onnx"), "one").expect("it can be written");
    let cache = Cache::open(config(&folder)).expect("it opens");
    let path = model.to_str().expect("it is text").to_owned();
    for uri in [path.clone(), format!("file://{path}")] {
        let fetched = cache.fetch(&[format!("{uri}/v1"), uri.clone()], None).await.expect("it is there");
        assert_eq!(
            (&fetched.path, fetched.digest, fetched.uri),
            (&model.canonicalize().expect("it is there"), None, uri)
        );
    }
    let digest = digest_of(&model).expect("it can be read");
    let fetched = cache.fetch(std::slice::from_ref(&path), Some(&digest)).await.expect("it agrees");
    assert_eq!(fetched.digest, Some(digest.clone()));
    std::fs::write(model.join("model.onnx"), "two").expect("it can be written");
    let error = cache.fetch(&[path], Some(&digest)).await.expect_err("it was changed");
    assert_eq!(error.code(), "checksum_mismatch");
}

#[tokio::test]
async fn local_files_outside_the_roots_are_refused() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("allowed")).expect("it can be made");
    let config = Config { local_roots: vec![folder.path().join("allowed")], ..config(&folder) };
    let error = fetch(&config, "/etc/hostname").await.expect_err("it is outside");
    assert_eq!(error.code(), "artifact_refused");
    assert!(error.to_string().contains("local_roots"), "{error}");
}

#[tokio::test]
async fn a_local_archive_is_unpacked() {
    let folder = folder();
    let archive = folder.path().join("iris.tgz");
    super::archives::pack(&archive, &[("iris/model.onnx", "one"), ("iris/golden.json", "{}")]);
    let fetched = fetch(&config(&folder), archive.to_str().expect("it is text")).await.expect("it is there");
    assert_eq!(text(&fetched.path.join("model.onnx")), "one");
    assert_eq!(fetched.digest, Some(digest_of(&archive).expect("it can be read")));
}
