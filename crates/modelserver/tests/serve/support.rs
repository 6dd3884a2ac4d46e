//! Models made once, and a server for each test.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use base::Tasks;
use modelserver::{Config, Listener, ServeError};
use serde_json::Value;
use tokio::task::JoinHandle;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The Python that makes the models and whose ONNX Runtime the server uses.
#[allow(clippy::disallowed_methods, reason = "the one place where the tests look at the environment")]
pub(crate) fn python() -> PathBuf {
    match std::env::var_os("MODELWAY_TEST_PYTHON") {
        Some(python) => python.into(),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/modelway/venv/bin/python"),
    }
}

/// The folder of all models.
pub(crate) fn models() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/make.py");
        let python = python();
        let made = Command::new(&python).arg(script).arg(folder.path()).output();
        let made = made.unwrap_or_else(|e| {
            panic!("{}: {e}; `make setup` makes it, MODELWAY_TEST_PYTHON names another", python.display())
        });
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    })
    .path()
}

/// A copy of a model's folder that a test may change.
pub(crate) fn copy(model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(models().join(model).join("model.onnx"), folder.path().join("model.onnx")).unwrap();
    folder
}

/// Settings for a source.
pub(crate) fn config(source: &Path) -> Config {
    let lib = python().parent().unwrap().join("../lib");
    let mut versions = std::fs::read_dir(lib).unwrap().map(|entry| entry.unwrap().path());
    let packages = versions.find_map(|version| {
        let packages = version.join("site-packages/onnxruntime/capi");
        packages.is_dir().then_some(packages)
    });
    Config {
        source: Some(source.display().to_string()),
        port: 0,
        drain_ms: 0,
        onnxruntime: Some(packages.expect("the Python has the package onnxruntime")),
        onnx_child: child(),
        ..Config::default()
    }
}

/// What runs a model in a process of its own: this very program, as one test.
fn child() -> Vec<OsString> {
    let program = std::env::current_exe().unwrap().into_os_string();
    [program, "support::onnx_child".into(), "--exact".into(), "--ignored".into(), "--nocapture".into()].into()
}

#[test]
#[ignore = "the server starts it for models in processes of their own"]
fn onnx_child() {
    modelserver::onnx_child();
}

/// A running server, ended when dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) tasks: Tasks,
    pub(crate) running: JoinHandle<Result<(), ServeError>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Server {
    /// Starts without waiting for readiness.
    pub(crate) async fn start(config: Config) -> Self {
        let listener = Listener::bind(&config).await.unwrap();
        let url = format!("http://{}", listener.address());
        let tasks = Tasks::new();
        let running = tasks.spawn(modelserver::run(config, listener, tasks.clone(), Tasks::new(), |_| {}));
        Self { url, tasks, running }
    }

    /// Starts and waits until it is ready.
    pub(crate) async fn ready(config: Config) -> Self {
        Self::ready_within(config, PATIENCE).await
    }

    /// The same for a model that takes long to be prepared.
    pub(crate) async fn ready_within(config: Config, patience: Duration) -> Self {
        let mut server = Self::start(config).await;
        let client = client();
        let ready = async {
            loop {
                let url = format!("{}/modelway/replica?after=1", server.url);
                tokio::select! {
                    result = &mut server.running => panic!("it ended: {result:?}"),
                    report = client.get(url).send() => {
                        let report: Value = report.unwrap().json().await.unwrap();
                        if report["state"] == "ready" { break }
                    }
                }
            }
        };
        tokio::time::timeout(patience, ready).await.expect("ready in time");
        server
    }

    /// One of the test models, under its folder's name.
    pub(crate) async fn of(model: &str) -> Self {
        Self::ready(config(&models().join(model))).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(client().get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        client().get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_bytes(path, body.to_string()).await
    }

    pub(crate) async fn post_bytes(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = client().post(format!("{}{path}", self.url)).body(body);
        answer(request.send().await.unwrap()).await
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self) -> Result<(), ServeError> {
        tokio::time::timeout(PATIENCE, &mut self.running).await.expect("it ends in time").unwrap()
    }
}

async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The error's words of an answer with this status.
#[track_caller]
pub(crate) fn refused((status, body): (u16, Value), expected: u16) -> String {
    assert_eq!(status, expected, "{body}");
    body["error"].as_str().unwrap_or_else(|| panic!("no error in {body}")).to_owned()
}

/// A request under way; dropping it hangs up.
pub(crate) struct UnderWay(JoinHandle<reqwest::Result<reqwest::Response>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl UnderWay {
    pub(crate) fn send(
        tasks: &Tasks,
        request: impl Future<Output = reqwest::Result<reqwest::Response>> + Send + 'static,
    ) -> Self {
        Self(tasks.spawn(request))
    }

    pub(crate) async fn answer(mut self) -> reqwest::Response {
        (&mut self.0).await.unwrap().unwrap()
    }
}

pub(crate) fn client() -> reqwest::Client {
    base::client::builder().build().unwrap()
}
