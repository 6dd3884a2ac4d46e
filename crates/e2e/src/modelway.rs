//! One Modelway: its folder, its ports, its processes.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use api::Deployment;
use reqwest::{Client, Method, StatusCode, header::HeaderMap};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{kill, models::Models, processes_naming, until, until_some};

/// The binary under test, built by the first test that asks.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--workspace", "--bin", "modelway"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .status()
            .unwrap();
        assert!(built.success(), "the binary does not build");
        // This test is at <target>/debug/deps/name-hash.
        let test = std::env::current_exe().unwrap();
        let binary = test.ancestors().nth(2).unwrap().join("modelway");
        assert!(binary.exists(), "{} is missing", binary.display());
        binary
    })
}

/// An HTTP client of its own, without a pool shared with others.
#[must_use]
pub fn client() -> Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    // Nothing here speaks TLS, and reading the machine's certificates takes a debug build a tenth of a second.
    let builder = Client::builder().no_proxy().tls_certs_only([]);
    builder.timeout(Duration::from_secs(30)).build().unwrap()
}

/// A port that was free a moment ago, and that the kernel gives to no connection meanwhile: one below those it takes
/// for the near end of a connection, of which these tests make thousands.
///
/// # Panics
///
/// If none of them is free.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 10_000;
    // Each process begins elsewhere, so that two which run at once do not ask for the same ones.
    let start = std::process::id().wrapping_mul(64);
    let free = (0..COUNT).find_map(|_| {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).ok()?;
        TcpListener::bind(("0.0.0.0", port)).ok().map(|_| port)
    });
    free.expect("no free port between 10000 and 20000")
}

/// Where the two planes answer.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The control plane's.
    pub control: u16,
    /// The gateway's.
    pub gateway: u16,
}

/// What a process is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything in one.
    Up,
    /// The control plane alone.
    Control,
    /// A worker alone.
    Worker,
    /// A gateway alone.
    Gateway,
}

impl Role {
    fn command(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Control => "control",
            Self::Worker => "worker",
            Self::Gateway => "gateway",
        }
    }
}

/// A status, its headers and its body.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, if it is JSON; else it as a string.
    pub body: Value,
}

/// One Modelway in a folder of its own. Dropping it kills what is left of it.
#[derive(Debug)]
pub struct Modelway {
    folder: Option<TempDir>,
    /// Where it answers.
    pub ports: Ports,
    running: Vec<(Role, Child)>,
    client: Client,
    environment: Vec<(String, String)>,
    /// Another than the one under test.
    binary: Option<PathBuf>,
}

impl Modelway {
    /// A folder and ports; nothing runs yet.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("modelway-e2e-").tempdir().unwrap();
        let ports = Ports { control: free_port(), gateway: free_port() };
        let (running, environment) = (Vec::new(), Vec::new());
        Self { folder: Some(folder), ports, running, client: client(), environment, binary: None }
    }

    /// `modelway up`, ready.
    pub async fn up() -> Self {
        let mut modelway = Self::new();
        modelway.start(Role::Up).await;
        modelway
    }

    /// Control plane, worker and gateway as processes of their own, ready.
    pub async fn apart() -> Self {
        let mut modelway = Self::new();
        modelway.start_apart().await;
        modelway
    }

    /// Starts control plane, worker and gateway as processes of their own.
    pub async fn start_apart(&mut self) {
        for role in [Role::Control, Role::Worker, Role::Gateway] {
            self.start(role).await;
        }
    }

    /// Sets a variable of every process that is started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts this binary from now on; `None`: the one under test.
    pub fn run_binary(&mut self, binary: Option<PathBuf>) {
        self.binary = binary;
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.as_ref().unwrap().path().join("data")
    }

    /// A place for models.
    #[must_use]
    pub fn models(&self) -> Models {
        Models::below(self.folder.as_ref().unwrap().path())
    }

    /// A command of the binary with this Modelway's settings, not yet run.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binary.as_deref().unwrap_or_else(|| binary()));
        command
            .args(arguments)
            .current_dir(self.folder.as_ref().unwrap().path())
            .env("MODELWAY__DATA_DIR", self.data_dir())
            .env("MODELWAY__SERVE__CACHE__DIR", self.data_dir().with_file_name("cache"))
            .env("MODELWAY__CONTROL__ADDR", format!("127.0.0.1:{}", self.ports.control))
            .env("MODELWAY__CONTROL__GATEWAY_URL", self.gateway(""))
            .env("MODELWAY__GATEWAY__ADDR", format!("127.0.0.1:{}", self.ports.gateway))
            .env("MODELWAY__GATEWAY__CONTROL_URL", self.control(""))
            .env("MODELWAY__CLIENT__CONTROL_URL", self.control(""))
            .env("MODELWAY__CLIENT__GATEWAY_URL", self.gateway(""))
            .stdin(Stdio::null());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// Runs a client command to its end. The output is text.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a client command that must succeed; its standard output.
    #[allow(clippy::must_use_candidate, reason = "often only the success matters")]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "modelway {}: {output:#?}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a role and waits until it answers.
    pub async fn start(&mut self, role: Role) {
        let log =
            |end: &str| File::create(self.folder.as_ref().unwrap().path().join(format!("{}.{end}", role.command())));
        let child =
            self.command(&[role.command()]).stdout(log("out").unwrap()).stderr(log("err").unwrap()).spawn().unwrap();
        self.running.push((role, child));
        let ready = match role {
            Role::Up | Role::Gateway => self.gateway("/v2/health/ready"),
            Role::Control => self.control("/health/ready"),
            // A worker has nothing that a stranger knows the address of.
            Role::Worker => return,
        };
        until(&format!("{role:?} is ready"), || async {
            self.client.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    /// What a role has said on standard error since its last start.
    #[must_use]
    pub fn log_of(&self, role: Role) -> String {
        let file = self.folder.as_ref().unwrap().path().join(format!("{}.err", role.command()));
        std::fs::read_to_string(file).unwrap_or_default()
    }

    /// The process of a role.
    #[must_use]
    pub fn pid(&self, role: Role) -> u32 {
        self.running.iter().find(|(running, _)| *running == role).unwrap().1.id()
    }

    /// Kills a role as a power failure would.
    pub fn kill(&mut self, role: Role) {
        let at = self.running.iter().position(|(running, _)| *running == role).unwrap();
        let (_, mut child) = self.running.remove(at);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends a role in good order.
    pub async fn stop(&mut self, role: Role) -> ExitStatus {
        let at = self.running.iter().position(|(running, _)| *running == role).unwrap();
        let (_, mut child) = self.running.remove(at);
        kill(child.id(), Signal::TERM);
        let mut ended = None;
        until_some(&format!("{role:?} ends"), || {
            ended = child.try_wait().unwrap();
            std::future::ready(ended)
        })
        .await
    }

    /// The pids of this Modelway's replicas, by the sockets and ids that only it uses.
    #[must_use]
    pub fn replica_pids(&self) -> Vec<u32> {
        processes_naming(&[" serve ", self.data_dir().to_str().unwrap()])
    }

    /// The pids of the Python processes in which its replicas run models.
    #[must_use]
    pub fn python_pids(&self) -> Vec<u32> {
        processes_naming(&["modelway._worker", self.folder.as_ref().unwrap().path().to_str().unwrap()])
    }

    /// A URL of the control plane.
    #[must_use]
    pub fn control(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.control)
    }

    /// A URL of the gateway.
    #[must_use]
    pub fn gateway(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports.gateway)
    }

    /// One request with a JSON body (none where it is null).
    pub async fn ask(&self, method: Method, url: &str, body: Value) -> Answer {
        self.ask_with(method, url, body, &[]).await
    }

    /// One request with a JSON body (none where it is null) and headers.
    pub async fn ask_with(&self, method: Method, url: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.request(method, url);
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let text = answer.text().await.unwrap();
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    /// Asks for a deployment of a model folder; its id.
    pub async fn deploy(&self, name: &str, model: &Path, replicas: u32) -> i64 {
        let body = json!({
            "name": name,
            "model": {"version": "1", "bucket": model.parent().unwrap(), "prefix": model.file_name().unwrap().to_str()},
            "replicas": replicas,
        });
        let answer = self.ask(Method::POST, &self.control("/v1/modelDeployment"), body).await;
        assert_eq!(answer.status, 201, "{answer:#?}");
        answer.body["id"].as_i64().unwrap()
    }

    /// A deployment as it is now.
    pub async fn deployment(&self, id: i64) -> Deployment {
        let answer = self.ask(Method::GET, &self.control(&format!("/v1/modelDeployment/{id}")), Value::Null).await;
        serde_json::from_value(answer.body.clone()).unwrap_or_else(|e| panic!("{e}: {answer:#?}"))
    }

    /// Waits until a deployment is as `holds` wants it.
    pub async fn until_deployment(&self, id: i64, what: &str, holds: impl Fn(&Deployment) -> bool) -> Deployment {
        let mut last = None;
        let found = tokio::time::timeout(crate::PATIENCE, async {
            loop {
                let now = self.deployment(id).await;
                if holds(&now) {
                    return now;
                }
                last = Some(now);
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("not in time: {what}; last seen {last:#?}"))
    }

    /// Waits until a deployment serves all that was asked for.
    pub async fn until_active(&self, id: i64) -> Deployment {
        self.until_deployment(id, "it is active", |d| {
            d.status.state == api::State::Active && d.status.serving_revision == Some(d.revision)
        })
        .await
    }

    /// Waits until the gateway answers a request for iris under `name` with 200.
    pub async fn until_predicts(&self, name: &str) {
        let url = self.infer_url(name);
        until(&format!("{name} predicts"), || async {
            self.ask(Method::POST, &url, self.iris_body()).await.status == 200
        })
        .await;
    }

    /// The URL to send predictions to.
    #[must_use]
    pub fn infer_url(&self, name: &str) -> String {
        self.gateway(&format!("/v2/models/{name}/infer"))
    }

    /// A good request for the iris model.
    #[must_use]
    pub fn iris_body(&self) -> Value {
        crate::iris_request("input")
    }
}

impl Default for Modelway {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Modelway {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.replica_pids() {
            kill(pid, Signal::KILL);
        }
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("what is left of the failed test is in {}", folder.keep().display());
        }
    }
}
