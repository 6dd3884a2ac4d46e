//! Artefacts in a real S3: versitygw, which `scripts/versitygw.sh` builds once.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use modelway_artifact::{Cache, Config};
use tempfile::TempDir;

use super::{config, folder, names, partial, text};

/// A server over a folder. The bucket `models` is a folder there.
struct S3 {
    server: Child,
    data: TempDir,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn binary() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/versitygw.sh");
    let output = Command::new(script).stderr(Stdio::inherit()).output().expect("the script runs");
    assert!(output.status.success(), "versitygw cannot be built");
    String::from_utf8(output.stdout).expect("it is text").trim().into()
}

impl S3 {
    async fn start(port: u16) -> Self {
        let data = folder();
        std::fs::create_dir_all(data.path().join("data/models")).expect("it can be made");
        let server = Command::new(binary())
            .args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "posix"])
            .arg(data.path().join("data"))
            .env("ROOT_ACCESS_KEY", "key")
            .env("ROOT_SECRET_KEY", "secret")
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let s3 = Self { server, data };
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return s3;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("versitygw does not listen");
    }

    fn put(&self, key: &str, content: &[u8]) {
        let place = self.data.path().join("data/models").join(key);
        std::fs::create_dir_all(place.parent().expect("it has one")).expect("it can be made");
        std::fs::write(place, content).expect("it can be written");
    }
}

/// The environment belongs to a process, so this is one process of its own.
#[test]
fn buckets_are_fetched_checked_and_resumed() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").port();
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "s3::with_credentials_in_the_environment", "--ignored", "--nocapture"])
        .env("ARTIFACT_TEST_PORT", port.to_string())
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "us-east-1")
        .status()
        .expect("it runs");
    assert!(status.success());
}

#[tokio::test]
#[ignore = "it needs the environment that the test above gives it"]
async fn with_credentials_in_the_environment() {
    let port = base::config::variable("ARTIFACT_TEST_PORT").expect("it is set").parse().expect("a port");
    let s3 = S3::start(port).await;
    let folder = folder();
    let config = config(&folder);
    let cache = Cache::open(config.clone()).expect("it opens");

    a_folder_comes_whole_from_its_version_or_without(&s3, &cache).await;
    an_object_comes_alone_and_an_archive_unpacked(&s3, &cache, folder.path()).await;
    a_changed_folder_is_fetched_again(&s3, &cache).await;
    what_is_missing_is_named(&cache).await;
    a_download_goes_on(&s3, &config).await;
    wrong_credentials_are_said(port, &config);
    drop(s3);
    let uris = ["s3://models/iris/v1".to_owned(), "s3://models/iris".to_owned()];
    let last = cache.fetch(&uris, None).await.expect("it is at hand though the server is gone");
    assert_eq!(last.uri, uris[0]);
    assert!(partial(&config).is_empty(), "{:?}", partial(&config));
}

async fn a_folder_comes_whole_from_its_version_or_without(s3: &S3, cache: &Cache) {
    s3.put("iris/v1/model.onnx", b"one");
    s3.put("iris/v1/sub/golden.json", b"{}");
    s3.put("iris/v10/model.onnx", b"another");
    let uris = ["s3://models/iris/v1".to_owned(), "s3://models/iris".to_owned()];
    let fetched = cache.fetch(&uris, None).await.expect("it is there");
    assert_eq!(fetched.uri, uris[0]);
    assert_eq!(names(&fetched.path), ["model.onnx", "sub"]);
    assert_eq!(text(&fetched.path.join("sub/golden.json")), "{}");
    assert_eq!(fetched.digest, Some(modelway_artifact::digest_of(&fetched.path).expect("it can be read")));
    let digest = fetched.digest.expect("it has one");
    cache.fetch(&uris, Some(&digest)).await.expect("it agrees");

    s3.put("flat/model.onnx", b"flat");
    let uris = ["s3://models/flat/v1".to_owned(), "s3://models/flat/".to_owned()];
    let fetched = cache.fetch(&uris, None).await.expect("the second is there");
    assert_eq!((fetched.uri.as_str(), names(&fetched.path)), ("s3://models/flat/", vec!["model.onnx".to_owned()]));
}

async fn an_object_comes_alone_and_an_archive_unpacked(s3: &S3, cache: &Cache, folder: &Path) {
    let fetched = cache.fetch(&["s3://models/iris/v1/model.onnx".to_owned()], None).await.expect("it is there");
    assert_eq!((text(&fetched.path).as_str(), fetched.path.file_name()), ("one", Some("model.onnx".as_ref())));
    let archive = folder.join("iris.tgz");
    super::archives::pack(&archive, &[("model.onnx", "packed")]);
    s3.put("iris.tgz", &std::fs::read(&archive).expect("it is there"));
    let fetched = cache.fetch(&["s3://models/iris.tgz".to_owned()], None).await.expect("it is there");
    assert_eq!(text(&fetched.path.join("model.onnx")), "packed");
}

async fn a_changed_folder_is_fetched_again(s3: &S3, cache: &Cache) {
    let uris = ["s3://models/changing".to_owned()];
    s3.put("changing/model.onnx", b"one");
    let first = cache.fetch(&uris, None).await.expect("it is there");
    assert_eq!(cache.fetch(&uris, None).await.expect("it is there").path, first.path);
    s3.put("changing/golden.json", b"{}");
    let second = cache.fetch(&uris, None).await.expect("it is there");
    assert_eq!(names(&second.path), ["golden.json", "model.onnx"]);
    assert_eq!(names(&first.path), ["model.onnx"]);
}

async fn what_is_missing_is_named(cache: &Cache) {
    for uri in ["s3://models/none/v1", "s3://nobucket/none"] {
        let error = cache.fetch(&[uri.to_owned()], None).await.expect_err("it is not there");
        assert_eq!(error.code(), "artifact_missing", "{error}");
        assert!(error.to_string().contains(uri), "{error}");
    }
}

/// A fetch that is dropped halfway leaves a beginning, from which the next one goes on to the right whole.
async fn a_download_goes_on(s3: &S3, config: &Config) {
    let whole: Vec<u8> = (0..40_000_000_u32).map(|at| u8::try_from(at % 241).expect("it is small")).collect();
    s3.put("large/model.onnx", &whole);
    let uris = ["s3://models/large".to_owned()];
    let small = Config { limit_bytes: 100_000_000, ..config.clone() };
    let cache = Cache::open(small.clone()).expect("it opens");
    // Cancelled as soon as something is on the disk.
    let beginning =
        || partial(&small).first().map(|key| small.dir.join("partial").join(key).join("entry/content/model.onnx"));
    let cancelled = {
        let fetching = cache.fetch(&uris, None);
        let mut fetching = std::pin::pin!(fetching);
        loop {
            if futures::poll!(fetching.as_mut()).is_ready() {
                break false;
            }
            if beginning().is_some_and(|file| file.metadata().is_ok_and(|file| file.len() > 0)) {
                break true;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(cancelled, "it was complete before it could be dropped");
    let fetched = cache.fetch(&uris, None).await.expect("it goes on");
    assert!(
        std::fs::read(fetched.path.join("model.onnx")).expect("it is there") == whole,
        "it is not what was put there"
    );
}

fn wrong_credentials_are_said(port: u16, config: &Config) {
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "s3::with_the_wrong_secret", "--ignored", "--nocapture"])
        .env("ARTIFACT_TEST_DIR", config.dir.with_file_name("other"))
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
#[ignore = "it needs the environment that the test above gives it"]
async fn with_the_wrong_secret() {
    let dir = base::config::variable("ARTIFACT_TEST_DIR").expect("it is set").into();
    let cache = Cache::open(Config { dir, ..Config::default() }).expect("it opens");
    let error = cache.fetch(&["s3://models/iris/v1".to_owned()], None).await.expect_err("it is denied");
    assert_eq!(error.code(), "artifact_denied", "{error}");
    assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{error}");
}
