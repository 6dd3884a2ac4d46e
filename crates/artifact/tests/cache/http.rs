//! Files behind a web server.

use modelway_artifact::{ArtifactError, Cache, Config};

use super::{
    config, fetch, folder, names, partial,
    server::{Mishap, Page, Server},
    text,
};

fn large() -> Vec<u8> {
    (0..3_000_000_u32).map(|at| u8::try_from(at % 251).expect("it is small")).collect()
}

#[tokio::test]
async fn an_unchanged_file_is_not_downloaded_again_and_a_changed_one_is() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    server.put("/iris/model.onnx", "one", "1");
    let first = fetch(&config, &server.url("/iris/model.onnx")).await.expect("it is there");
    assert_eq!(text(&first.path), "one");
    assert_eq!(first.path.file_name().expect("a file"), "model.onnx");
    assert_eq!(
        first.digest.as_deref(),
        Some("sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed")
    );
    let again = fetch(&config, &server.url("/iris/model.onnx")).await.expect("it is there");
    assert_eq!(again.path, first.path);
    assert_eq!(server.answers(), [(200, None), (304, None)]);
    server.put("/iris/model.onnx", "two", "2");
    let changed = fetch(&config, &server.url("/iris/model.onnx")).await.expect("it is there");
    assert_eq!(
        (text(&changed.path).as_str(), text(&first.path).as_str()),
        ("two", "one"),
        "who has the old one keeps it"
    );
    assert!(partial(&config).is_empty());
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_broke() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    server.put("/model.onnx", large(), "1");
    server.mishap(Mishap::CutAfter(1_000_000));
    server.mishap(Mishap::CutAfter(700_000));
    let fetched = fetch(&config, &server.url("/model.onnx")).await.expect("it goes on");
    assert!(std::fs::read(&fetched.path).expect("it is there") == large());
    let ranges: Vec<_> = server.answers().into_iter().map(|(status, range)| (status, range.is_some())).collect();
    assert_eq!(ranges, [(200, false), (206, true), (206, true)]);
    assert!(server.bytes_sent() <= large().len() + 500_000, "{} bytes for {}", server.bytes_sent(), large().len());
}

#[tokio::test]
async fn what_a_dead_process_downloaded_is_gone_on_from() {
    let (folder, server) = (folder(), Server::start().await);
    let config = Config { attempts: 1, ..config(&folder) };
    server.put("/model.onnx", large(), "1");
    server.mishap(Mishap::CutAfter(2_000_000));
    server.mishap(Mishap::Status(503));
    let error = fetch(&config, &server.url("/model.onnx")).await.expect_err("it broke");
    assert!(matches!(error, ArtifactError::Unavailable { .. }) && error.may_pass(), "{error}");
    assert_eq!(partial(&config).len(), 1);
    server.answers();
    let fetched = fetch(&config, &server.url("/model.onnx")).await.expect("it goes on");
    assert!(std::fs::read(&fetched.path).expect("it is there") == large());
    let last = server.answers().pop().expect("it asked");
    assert_eq!(last.0, 206, "{last:?}");
    assert!(partial(&config).is_empty());
}

#[tokio::test]
async fn a_file_that_changed_since_the_break_starts_anew() {
    let (folder, server) = (folder(), Server::start().await);
    let config = Config { attempts: 1, ..config(&folder) };
    server.put("/model.onnx", large(), "1");
    server.mishap(Mishap::CutAfter(2_000_000));
    server.mishap(Mishap::Status(503));
    fetch(&config, &server.url("/model.onnx")).await.expect_err("it broke");
    server.put("/model.onnx", "new", "2");
    let fetched = fetch(&config, &server.url("/model.onnx")).await.expect("it is there");
    assert_eq!(text(&fetched.path), "new");
}

#[tokio::test]
async fn a_server_without_ranges_or_lengths_is_read_from_the_start() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    let page =
        Page { body: large().into(), etag: None, content_type: "application/x-onnx", ranges: false, length: false };
    server.put_page("/model.onnx", page);
    server.mishap(Mishap::CutAfter(1_000_000));
    let fetched = fetch(&config, &server.url("/model.onnx")).await.expect("it goes on");
    assert!(std::fs::read(&fetched.path).expect("it is there") == large());
}

#[tokio::test]
async fn the_first_place_that_has_something_is_taken_and_a_missing_one_names_all() {
    let (folder, server) = (folder(), Server::start().await);
    let cache = Cache::open(config(&folder)).expect("it opens");
    server.put("/iris.onnx", "model", "1");
    let uris = [server.url("/iris.onnx/v1"), server.url("/iris.onnx")];
    let fetched = cache.fetch(&uris, None).await.expect("the second is there");
    assert_eq!(fetched.uri, uris[1]);
    let uris = [server.url("/a/v1"), server.url("/a")];
    let error = cache.fetch(&uris, None).await.expect_err("neither is there");
    assert_eq!((error.code(), error.may_pass()), ("artifact_missing", false));
    assert!(uris.iter().all(|uri| error.to_string().contains(uri)), "{error}");
}

#[tokio::test]
async fn a_wrong_digest_is_said_and_leaves_nothing() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    let cache = Cache::open(config.clone()).expect("it opens");
    server.put("/model.onnx", "one", "1");
    let uris = [server.url("/model.onnx")];
    let wrong = format!("sha256:{}", "0".repeat(64));
    let error = cache.fetch(&uris, Some(&wrong)).await.expect_err("it differs");
    assert_eq!(error.code(), "checksum_mismatch");
    assert!(error.to_string().contains(&wrong) && error.to_string().contains("sha256:7692"), "{error}");
    assert!(partial(&config).is_empty() && names(&config.dir.join("sha256")).is_empty());
    let right = "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    cache.fetch(&uris, Some(right)).await.expect("it agrees");
    server.answers();
    cache.fetch(&uris, Some(right)).await.expect("it is at hand");
    assert!(server.answers().is_empty(), "what is known by its digest needs no server");
    let error = cache.fetch(&uris, Some(&wrong)).await.expect_err("it differs, though it is at hand");
    assert_eq!(error.code(), "checksum_mismatch");
    assert_eq!(cache.fetch(&uris, Some("sha256:1")).await.expect_err("no digest").code(), "digest_invalid");
}

#[tokio::test]
async fn while_the_server_is_away_the_last_artefact_is_served() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    server.put("/model.onnx", "one", "1");
    fetch(&config, &server.url("/model.onnx")).await.expect("it is there");
    for _ in 0..2 {
        server.mishap(Mishap::Status(503));
    }
    let fetched = fetch(&config, &server.url("/model.onnx")).await.expect("it is at hand");
    assert_eq!(text(&fetched.path), "one");
}

#[tokio::test]
async fn what_no_waiting_mends_is_refused_at_once() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    server.put("/model.onnx", "one", "1");
    for (status, code) in [(403, "artifact_denied"), (401, "artifact_denied"), (400, "artifact_refused")] {
        server.mishap(Mishap::Status(status));
        let error = fetch(&config, &server.url("/model.onnx?secret=hush")).await.expect_err("it is refused");
        assert_eq!((error.code(), server.answers().len()), (code, 1), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }
    let page = Page {
        body: "<html>".into(),
        etag: None,
        content_type: "text/html; charset=utf-8",
        ranges: false,
        length: true,
    };
    server.put_page("/page", page);
    let error = fetch(&config, &server.url("/page")).await.expect_err("it is no model");
    assert!(error.to_string().contains("returns a web page"), "{error}");
}

#[tokio::test]
async fn a_file_larger_than_the_cache_is_refused_with_or_without_a_length() {
    let (folder, server) = (folder(), Server::start().await);
    let config = Config { limit_bytes: 1_000_000, ..config(&folder) };
    for length in [true, false] {
        let page = Page { body: large().into(), etag: None, content_type: "application/x-onnx", ranges: false, length };
        server.put_page("/model.onnx", page);
        let error = fetch(&config, &server.url("/model.onnx")).await.expect_err("it is too large");
        assert_eq!(error.code(), "artifact_too_large", "{error}");
        assert!(partial(&config).is_empty());
    }
}

#[tokio::test]
async fn nobody_learns_the_signed_address_that_sent_us_elsewhere() {
    let (folder, server) = (folder(), Server::start().await);
    server.put("/model.onnx", "one", "1");
    server.put("/elsewhere.onnx", "two", "1");
    server.mishap(Mishap::MovedTo("/elsewhere.onnx"));
    let fetched = fetch(&config(&folder), &server.url("/model.onnx?signature=hush")).await.expect("it is followed");
    assert_eq!(text(&fetched.path), "two");
    assert_eq!(server.referers(), Vec::<String>::new());
}
