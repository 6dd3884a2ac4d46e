//! Sharing, eviction and damage.

use std::{
    process::{Child, Command},
    time::Duration,
};

use futures::future::join_all;
use modelway_artifact::{Cache, Config};

use super::{
    config, fetch, folder, names, partial,
    server::{Mishap, Server},
    text,
};

#[tokio::test]
async fn many_who_want_the_same_at_once_share_one_download() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    server.put("/model.onnx", vec![7; 5_000_000], "1");
    let url = server.url("/model.onnx");
    let all = join_all((0..8).map(|_| fetch(&config, &url))).await;
    let paths: Vec<_> = all.into_iter().map(|fetched| fetched.expect("it is there").path).collect();
    assert!(paths.windows(2).all(|two| two[0] == two[1]));
    assert_eq!(server.bytes_sent(), 5_000_000);
    assert!(names(&config.dir.join("locks")).is_empty(), "locks are cleared away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_one_download() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    server.put("/model.onnx", vec![7; 20_000_000], "1");
    let start = || in_another_process(&config, &server.url("/model.onnx"));
    let children = [start(), start(), start()];
    let ended = tokio::task::spawn_blocking(|| children.map(|mut child| child.wait().expect("it ends").success()));
    assert_eq!(ended.await.expect("they end"), [true; 3]);
    assert_eq!(server.bytes_sent(), 20_000_000);
}

/// Fetches, in a process of its own.
fn in_another_process(config: &Config, url: &str) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "shelf::fetch_what_another_test_says", "--ignored", "--nocapture"])
        .env("ARTIFACT_TEST_DIR", &config.dir)
        .env("ARTIFACT_TEST_URL", url)
        .spawn()
        .expect("it starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_had_downloaded_is_gone_on_from() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    server.put("/model.onnx", vec![7; 20_000_000], "1");
    server.mishap(Mishap::StallAfter(15_000_000));
    let mut child = in_another_process(&config, &server.url("/model.onnx"));
    let written = || -> Option<u64> {
        let key = names(&config.dir.join("partial")).into_iter().find(|name| name.len() == 64)?;
        let file = config.dir.join("partial").join(key).join("entry/content/model.onnx");
        Some(std::fs::metadata(file).ok()?.len())
    };
    let patience = tokio::time::timeout(Duration::from_secs(60), async {
        while !config.dir.join("partial").exists() || written() != Some(15_000_000) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    patience.await.expect("the other process downloads what it gets");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let fetched = fetch(&config, &server.url("/model.onnx")).await.expect("its lock died with it");
    assert!(std::fs::read(&fetched.path).expect("it is there") == vec![7; 20_000_000]);
    assert_eq!(server.answers().pop(), Some((206, Some("bytes=15000000-".to_owned()))));
}

#[tokio::test]
#[ignore = "it is the other process of the tests above"]
async fn fetch_what_another_test_says() {
    let said = |name| base::config::variable(name).expect(name);
    let config = Config { dir: said("ARTIFACT_TEST_DIR").into(), ..Config::default() };
    let fetched = fetch(&config, &said("ARTIFACT_TEST_URL")).await.expect("it is there");
    assert_eq!(std::fs::metadata(fetched.path).expect("it is there").len(), 20_000_000);
}

#[tokio::test]
async fn the_least_recently_used_goes_and_what_is_in_use_stays() {
    let (folder, server) = (folder(), Server::start().await);
    let config = Config { limit_bytes: 2_500_000, ..config(&folder) };
    let cache = Cache::open(config.clone()).expect("it opens");
    for (at, name) in ["/a", "/b", "/c", "/d"].into_iter().enumerate() {
        server.put(name, vec![u8::try_from(at).expect("it is small"); 1_000_000], "1");
    }
    let get = async |name: &str| cache.fetch(&[server.url(name)], None).await;
    let a = get("/a").await.expect("it fits");
    let b = get("/b").await.expect("it fits").path;
    let c = get("/c").await.expect("b goes");
    assert!(!b.exists() && a.path.exists() && c.path.exists());
    let error = get("/d").await.expect_err("both are in use");
    assert_eq!((error.code(), error.may_pass()), ("cache_full", true), "{error}");
    assert!(partial(&config).is_empty());
    let (a, c_path) = (a.path.clone(), c.path.clone());
    drop(c);
    get("/d").await.expect("now it fits");
    assert_ne!(a.exists(), c_path.exists(), "one of them went");
    assert_eq!(names(&config.dir.join("index")).len(), 2, "what is gone is forgotten");
}

#[tokio::test]
async fn a_damaged_artefact_is_fetched_again() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    server.put("/model.onnx", "one", "1");
    let url = server.url("/model.onnx");
    for damage in ["", "eno", "longer"] {
        let fetched = fetch(&config, &url).await.expect("it is there");
        std::fs::write(&fetched.path, damage).expect("it can be damaged");
        let again = fetch(&config, &url).await.expect("it is there");
        assert_eq!(text(&again.path), "one", "after {damage:?}");
    }
    let fetched = fetch(&config, &url).await.expect("it is there");
    std::fs::remove_file(
        config.dir.join("sha256").join(&fetched.digest.expect("it has one")[7..]).join("manifest.json"),
    )
    .expect("it goes");
    assert_eq!(text(&fetch(&config, &url).await.expect("it is there").path), "one");
}

#[tokio::test]
async fn equal_bytes_are_kept_once_whatever_they_are_called() {
    let (folder, server) = (folder(), Server::start().await);
    let config = config(&folder);
    server.put("/download", "one", "1");
    server.put("/model.onnx", "one", "1");
    let first = fetch(&config, &server.url("/download")).await.expect("it is there");
    let second = fetch(&config, &server.url("/model.onnx")).await.expect("it is there");
    assert_eq!(first.path.parent(), second.path.parent());
    assert_eq!(second.path.extension().expect("an ending"), "onnx");
    assert_eq!(names(&config.dir.join("sha256")).len(), 1);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_says_so() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("it can be written");
    let error = Cache::open(Config { dir: file.join("cache"), ..Config::default() }).expect_err("it is no folder");
    assert_eq!(error.code(), "cache_failed");
    assert!(error.to_string().contains("file/cache"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing() {
    let (folder, server) = (folder(), Server::start().await);
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).expect("it can be made");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user cannot mount a small disk");
        return;
    }
    let config = Config { dir: disk.join("cache"), ..config(&folder) };
    server.put("/small.onnx", vec![7; 600_000], "1");
    server.put("/other.onnx", vec![8; 600_000], "1");
    drop(fetch(&config, &server.url("/small.onnx")).await.expect("it fits"));
    let other = fetch(&config, &server.url("/other.onnx")).await.map(drop);
    let sent = server.bytes_sent();
    server.put("/model.onnx", vec![7; 40_000_000], "1");
    let error = fetch(&config, &server.url("/model.onnx")).await.expect_err("it does not fit");
    let left = partial(&config);
    let sent = server.bytes_sent() - sent;
    let unmounted = Command::new("umount").arg(&disk).status().expect("umount runs");
    assert!(unmounted.success());
    assert_eq!((error.code(), error.may_pass()), ("disk_full", true), "{error}");
    assert!(left.is_empty(), "{left:?}");
    other.expect("what nobody uses makes room for it");
    assert_eq!(sent, 40_000_000, "it is asked for once");
}

#[tokio::test]
async fn a_download_that_broke_off_long_ago_is_removed() {
    let (folder, server) = (folder(), Server::start().await);
    let config = Config { attempts: 1, ..config(&folder) };
    server.put("/model.onnx", vec![7; 1 << 20], "1");
    server.mishap(Mishap::CutAfter(500_000));
    server.mishap(Mishap::Status(503));
    let error = fetch(&config, &server.url("/model.onnx")).await.expect_err("it broke");
    let [broken] = &partial(&config)[..] else { panic!("{error}: {:?}", partial(&config)) };
    drop(Cache::open(config.clone()).expect("it opens"));
    assert_eq!(partial(&config).len(), 1, "somebody may go on with it");

    let tried = config.dir.join("partial").join(broken).join("fingerprint");
    let long_ago = base::Clock::system().now() - Duration::from_hours(24 * 8);
    std::fs::File::options().write(true).open(tried).expect("it is there").set_modified(long_ago).expect("it is ours");
    drop(Cache::open(config.clone()).expect("it opens"));
    assert_eq!(partial(&config), Vec::<String>::new());
}
