//! Real servers around a real gateway: replicas that can be told to misbehave, and a control plane that says routes.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod grpc;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use api::{
    DeploymentId, EndpointId, ReplicaId, RevisionNumber, State,
    deployment::LogPayloads,
    ejected::{EJECTED_PATH, Ejected},
    lost::{LOST_PATH, LostRequests},
    route::{Change, Entry, RouteMessage, RouteReplica, RouteRevision, form1::Route},
};
use base::{Clock, Tasks};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{
    BodyExt, Full, StreamBody,
    combinators::{BoxBody, UnsyncBoxBody},
};
use hyper::body::{Frame, Incoming};
use hyper_util::{rt::TokioIo, server::conn::auto};
use modelway_gateway::{Config, GatewayError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

pub(crate) fn text(words: impl Into<Bytes>) -> Body {
    Full::new(words.into()).map_err(|never| match never {}).boxed()
}

/// How a replica answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// 200, with its name, the path and the length of the body.
    Well,
    /// This status, at once.
    Status(u16),
    /// 503, and the word that nothing was begun.
    NotBegun,
    /// After 20 milliseconds, unless the body holds "poison": that ends the whole replica.
    Fatal,
    /// Not at all.
    Never,
    /// Not at all, and no probe either: as after `kill -STOP`.
    Frozen,
    /// After so many milliseconds.
    Late(u64),
    /// It reads the request and closes the connection.
    HangUp,
    /// It breaks off in the middle of its answer, when it is told to.
    HalfAnswer(&'static tokio::sync::Notify),
    /// As gRPC: the message back, and trailers.
    Grpc,
    /// As gRPC, but of a stream it takes nothing.
    DeafGrpc,
    /// As gRPC: so many bytes, whatever it is asked.
    LongGrpc(usize),
}

pub(crate) struct Replica {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    pub(crate) manner: Arc<Mutex<Manner>>,
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) bytes: Arc<AtomicU64>,
    /// In how many frames they came.
    pub(crate) frames: Arc<AtomicUsize>,
    pub(crate) seen: Arc<Mutex<HeaderMap>>,
    closing: Arc<tokio::sync::Notify>,
    tasks: Tasks,
}

impl Replica {
    pub(crate) async fn start(name: &'static str, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replica = Self {
            name,
            addr: listener.local_addr().unwrap(),
            manner: Arc::new(Mutex::new(manner)),
            requests: Arc::default(),
            bytes: Arc::default(),
            frames: Arc::default(),
            seen: Arc::default(),
            closing: Arc::default(),
            tasks: Tasks::new(),
        };
        let (tasks, closing) = (replica.tasks.clone(), replica.closing.clone());
        let came = (replica.bytes.clone(), replica.frames.clone());
        let (manner, requests, seen) = (replica.manner.clone(), replica.requests.clone(), replica.seen.clone());
        tasks.clone().spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = tasks.stopping() => return,
                };
                let (manner, requests, came, seen) = (manner.clone(), requests.clone(), came.clone(), seen.clone());
                let stop = tasks.clone();
                let (ending, closing) = (tasks.clone(), closing.clone());
                tasks.spawn(async move {
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let (manner, requests, came, seen) =
                            (*manner.lock().unwrap(), requests.clone(), came.clone(), seen.clone());
                        let stop = stop.clone();
                        async move {
                            if !matches!(request.uri().path(), api::replica::SELF_REPORT_PATH) {
                                requests.fetch_add(1, Ordering::SeqCst);
                                *seen.lock().unwrap() = request.headers().clone();
                            }
                            answer(name, manner, request, (&came.0, &came.1), &stop).await
                        }
                    });
                    let builder = auto::Builder::new(Executor(ending.clone()));
                    tokio::select! {
                        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                        () = ending.stopping() => {}
                        () = closing.notified() => {}
                    }
                });
            }
        });
        replica
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Ends its connections; it takes new ones.
    pub(crate) fn close_connections(&self) {
        self.closing.notify_waiters();
    }

    /// Whether it has ended.
    pub(crate) fn is_dead(&self) -> bool {
        self.tasks.is_stopping()
    }

    /// As `kill -9`: its port refuses from now on, its connections break.
    pub(crate) async fn kill(&self) {
        assert!(self.tasks.stop_and_wait(Duration::from_secs(5)).await);
    }

    pub(crate) fn route(&self) -> RouteReplica {
        RouteReplica { id: ReplicaId(self.name.to_owned()), address: self.addr.to_string().parse().unwrap() }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

#[derive(Clone)]
pub(crate) struct Executor(pub(crate) Tasks);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

async fn answer(
    name: &'static str,
    manner: Manner,
    request: Request<Incoming>,
    (bytes, frames): (&AtomicU64, &AtomicUsize),
    tasks: &Tasks,
) -> Result<Response<Body>, std::io::Error> {
    if matches!(manner, Manner::Frozen) {
        std::future::pending::<()>().await;
    }
    let path = request.uri().path().to_owned();
    if path == api::replica::SELF_REPORT_PATH {
        let report = r#"{"replica":null,"pid":1,"seq":1,"state":"ready","artifact":null,"cpu_micros":1500000,"memory_bytes":4096}"#;
        return Ok(Response::new(text(report)));
    }
    let mut body = request.into_body();
    if matches!(manner, Manner::DeafGrpc) && path.ends_with("ModelStreamInfer") {
        std::future::pending::<()>().await;
    }
    let mut length = 0;
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(std::io::Error::other)?.into_data() else { continue };
        length += data.len();
        frames.fetch_add(1, Ordering::SeqCst);
        bytes.fetch_add(data.len() as u64, Ordering::SeqCst);
        if all.len() < 1 << 16 {
            all.extend_from_slice(&data);
        }
    }
    let well = || Response::new(text(format!("{name} {path} {length}")));
    match manner {
        Manner::Well => Ok(well()),
        Manner::Status(code) => {
            let mut response = Response::new(text(r#"{"error":"as told"}"#));
            *response.status_mut() = code.try_into().unwrap();
            Ok(response)
        }
        Manner::NotBegun => {
            let mut response = Response::new(text(r#"{"error":"full"}"#));
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(api::replica::NOT_BEGUN_HEADER, "1".parse().unwrap());
            Ok(response)
        }
        Manner::Fatal => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if all.windows(6).any(|bytes| bytes == b"poison") {
                tasks.stop();
                std::future::pending::<()>().await;
            }
            Ok(well())
        }
        Manner::Never | Manner::Frozen => std::future::pending().await,
        Manner::Late(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(well())
        }
        Manner::HangUp => Err(std::io::Error::other("as told")),
        Manner::HalfAnswer(now) => {
            let broken = futures::stream::once(async {
                now.notified().await;
                Err(std::io::Error::other("as told"))
            });
            let half = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"half of")))]);
            let frames = futures::StreamExt::chain(half, broken);
            Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))))
        }
        Manner::Grpc | Manner::DeafGrpc | Manner::LongGrpc(_) => {
            if let Manner::LongGrpc(length) = manner {
                all = vec![0; length];
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("x-by", name.parse().unwrap());
            let length = all.len();
            let frames = [Ok(Frame::data(all.into())), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(BodyExt::boxed(StreamBody::new(futures::stream::iter(frames))));
            response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            // A replica may know how long its answer is.
            response.headers_mut().insert("content-length", length.into());
            Ok(response)
        }
    }
}

/// What a control plane was told by gateways.
#[derive(Clone, Default)]
pub(crate) struct Told {
    pub(crate) lost: Arc<Mutex<Vec<LostRequests>>>,
    pub(crate) ejected: Arc<Mutex<Vec<Ejected>>>,
}

/// A control plane of routes and nothing else.
pub(crate) struct Control {
    pub(crate) addr: SocketAddr,
    epoch: String,
    entries: Arc<Mutex<BTreeMap<(i64, &'static str), Change>>>,
    /// The reports of gateways.
    pub(crate) told: Told,
    version: Arc<watch::Sender<i64>>,
    tasks: Tasks,
}

impl Control {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0", "one").await
    }

    pub(crate) async fn start_at(addr: &str, epoch: &str) -> Self {
        let listener = eventually("the port to be free", || TcpListener::bind(addr.to_owned())).await;
        let control = Self {
            addr: listener.local_addr().unwrap(),
            epoch: epoch.to_owned(),
            entries: Arc::default(),
            told: Told::default(),
            version: Arc::new(watch::Sender::new(0)),
            tasks: Tasks::new(),
        };
        let (tasks, epoch) = (control.tasks.clone(), epoch.to_owned());
        let (entries, version, told) = (control.entries.clone(), control.version.clone(), control.told.clone());
        tasks.clone().spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = tasks.stopping() => return,
                };
                let (entries, versions, epoch, stop) =
                    (entries.clone(), version.subscribe(), epoch.clone(), tasks.clone());
                let told = told.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        _ = tell(stream, &epoch, &entries, &told, versions) => {}
                        () = stop.stopping() => {}
                    }
                });
            }
        });
        control
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Tells of a deployment and its endpoint.
    pub(crate) fn set(&self, id: i64, route: Option<Route>) {
        let (policy, targets) = route.map(|route| route.split(DeploymentId(id))).unzip();
        self.tell([
            Entry::Endpoint { key: EndpointId(id), value: policy },
            Entry::Targets { key: DeploymentId(id), value: targets },
        ]);
    }

    /// Tells of entries that changed.
    pub(crate) fn tell(&self, changed: impl IntoIterator<Item = Entry>) {
        let version = *self.version.borrow() + 1;
        for entry in changed {
            let key = match &entry {
                Entry::Endpoint { key, .. } => (key.0, "endpoint"),
                Entry::Targets { key, .. } => (key.0, "targets"),
                Entry::Unknown => (0, "unknown"),
            };
            self.entries.lock().unwrap().insert(key, Change { version, entry });
        }
        self.version.send_replace(version);
    }

    pub(crate) async fn stop(self) {
        assert!(self.tasks.stop_and_wait(Duration::from_secs(5)).await);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn tell(
    mut stream: TcpStream,
    epoch: &str,
    entries: &Mutex<BTreeMap<(i64, &'static str), Change>>,
    told: &Told,
    mut versions: watch::Receiver<i64>,
) -> std::io::Result<Infallible> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if let Some(length) = head.split_once("content-length: ").filter(|_| head.starts_with("POST ")) {
        let mut body = vec![0; length.1.split("\r\n").next().unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await?;
        match head.split(' ').nth(1) {
            Some(LOST_PATH) => told.lost.lock().unwrap().extend(serde_json::from_slice::<Vec<LostRequests>>(&body)?),
            Some(EJECTED_PATH) => told.ejected.lock().unwrap().extend(serde_json::from_slice::<Vec<Ejected>>(&body)?),
            other => panic!("no path of a control plane: {other:?}"),
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await?;
        return Err(std::io::ErrorKind::NotConnected.into());
    }
    let same = head.contains(&format!("epoch={epoch}&"));
    let mut after = 0;
    if same {
        let from = head.find("after=").map_or("", |at| &head[at + 6..]);
        after = from.split(' ').next().unwrap_or("").parse().unwrap_or(0);
    }
    assert!(head.contains("?protocol=2"), "{head}");
    let hello = RouteMessage::Hello { epoch: epoch.to_owned(), reset: after == 0 };
    let mut lines = String::from("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n") + &line(&hello);
    loop {
        let version = *versions.borrow_and_update();
        for change in entries.lock().unwrap().values().filter(|change| change.version > after) {
            lines += &line(&RouteMessage::Change(change.clone()));
        }
        lines += &line(&RouteMessage::Synced { version });
        stream.write_all(lines.as_bytes()).await?;
        lines.clear();
        after = version;
        if versions.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn line(message: &RouteMessage) -> String {
    serde_json::to_string(message).unwrap() + "\n"
}

pub(crate) fn route(name: &str, replicas: &[&Replica]) -> Route {
    Route {
        name: Some(name.to_owned()),
        former: None,
        state: State::Active,
        reason: None,
        revisions: vec![revision(1, "v1", 100, replicas)],
        request_timeout_ms: 20_000,
        idempotent: true,
        log_payloads: LogPayloads::None,
    }
}

pub(crate) fn revision(number: u32, version: &str, weight: u32, replicas: &[&Replica]) -> RouteRevision {
    RouteRevision {
        number: RevisionNumber(number),
        model_version: version.to_owned(),
        weight,
        replicas: replicas.iter().map(|replica| replica.route()).collect(),
    }
}

pub(crate) struct Gateway {
    pub(crate) addr: SocketAddr,
    pub(crate) client: reqwest::Client,
    tasks: Tasks,
    running: tokio::task::JoinHandle<Result<(), GatewayError>>,
}

impl Gateway {
    pub(crate) async fn start(control: &Control) -> Self {
        Self::with(Config { control_url: control.url(), ..config() }).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let listener = base::net::bind("127.0.0.1:0", "addr").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tasks = Tasks::new();
        let running =
            Tasks::new().spawn(modelway_gateway::run(config, listener, tasks.clone(), Clock::system(), no_reflection));
        let client = base::client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        Self { addr, client, tasks, running }
    }

    /// One replica named `a` behind deployment 1, named `iris`.
    pub(crate) async fn simple(manner: Manner) -> (Replica, Control, Self) {
        let replica = Replica::start("a", manner).await;
        let control = Control::start().await;
        control.set(1, Some(route("iris", &[&replica])));
        let gateway = Self::start(&control).await;
        gateway.until_known("md-1").await;
        (replica, control, gateway)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, HeaderMap, String) {
        let response = self.client.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.headers().clone(), response.text().await.unwrap())
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, HeaderMap, String) {
        let response = self.client.post(self.url(path)).body(body).send().await.unwrap();
        (response.status().as_u16(), response.headers().clone(), response.text().await.unwrap())
    }

    pub(crate) async fn infer(&self, name: &str) -> (u16, HeaderMap, String) {
        self.post(&format!("/v2/models/{name}/infer"), "{}").await
    }

    pub(crate) async fn until_known(&self, name: &str) {
        self.until(&format!("{name} to be known"), "/v1/models", |text| text.contains(&format!("\"{name}\""))).await;
    }

    pub(crate) async fn until(&self, what: &str, path: &str, holds: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < Duration::from_secs(20) {
            if let Ok(response) = self.client.get(self.url(path)).send().await {
                last = response.text().await.unwrap_or_default();
                if holds(&last) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain for {what}; {path} says {last}");
    }

    pub(crate) async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    pub(crate) fn begin_stop(&self) {
        self.tasks.stop();
    }

    pub(crate) async fn stop(self) {
        self.tasks.stop();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.running).await;
        ended.expect("it ends in time").expect("no panic").expect("no error");
    }
}

/// Reflection is the model server's, which stands not behind these gateways; `crates/e2e/tests/doors.rs` asks it.
fn no_reflection(
    _: Request<Incoming>,
) -> BoxFuture<'static, Response<UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>>> {
    unreachable!("no test asks for reflection")
}

pub(crate) fn config() -> Config {
    Config { threads: 2, drain_ms: 3_000, ..Config::default() }
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn table_in(folder: &Path) -> PathBuf {
    folder.join("gateway/routes.json")
}

/// Tries until it works.
pub(crate) async fn eventually<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain for {what}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Everything that comes until the other side closes.
pub(crate) async fn read_all(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
    // A reset after the answer ends it as well as a close.
    let _ended = reading.expect("the connection ends");
    String::from_utf8_lossy(&all).into_owned()
}
