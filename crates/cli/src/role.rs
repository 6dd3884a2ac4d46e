//! Runs roles until they are told to end, or until one of them fails.
//!
//! Each role is the `run` of another crate, with its own section of the settings and a listener that is bound here
//! before any other work. So an address that is in use is reported at once, without side effects.

mod golden;
mod lock;
mod serve;
mod signal;
mod up;

use std::{future::Future, path::Path, process::ExitCode, sync::Arc, time::Duration};

use backend::{Backend, fake::FakeBackend, process::ProcessBackend};
use base::{
    Clock, Tasks,
    config::Loaded,
    net::{bind, require_loopback},
};
use store::Store;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{args::BackendKind, exit::Failure, output::tell, settings::Settings};

pub use golden::record as record_golden;
pub use serve::serve;
pub use up::up;

use signal::{By, Signals};

/// Number of threads of a role that mostly waits.
const FEW_THREADS: usize = 2;

/// A running role.
struct Running {
    name: &'static str,
    tasks: Tasks,
    handle: JoinHandle<Result<(), Failure>>,
}

impl Running {
    /// Starts a role on the runtime. `tasks` tells `role` to end.
    fn start<E: std::error::Error + 'static>(
        name: &'static str,
        tasks: Tasks,
        role: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Self {
        let failure = move |error: E| Failure::failed(format!("{name}: {}", crate::exit::chain(&error)));
        let handle = tasks.spawn(async move { role.await.map_err(failure) });
        Self { name, tasks, handle }
    }

    /// Waits for an unexpected end of the role.
    async fn fails(&mut self) -> Failure {
        match (&mut self.handle).await {
            Ok(Ok(())) => Failure::failed(format!("{} ended although nobody told it to", self.name)),
            Ok(Err(failure)) => failure,
            Err(error) => Failure::failed(format!("{} broke: {error}", self.name)),
        }
    }

    /// Tells the role to end and waits for it, at most `patience`.
    async fn end(self, patience: Duration) {
        self.tasks.stop();
        if !self.handle.is_finished() && tokio::time::timeout(patience, self.handle).await.is_err() {
            tracing::warn!(role = self.name, "did not end in time");
        }
    }
}

/// Sets up a process: its log, its limits, its runtime; then runs `main` on it.
fn with_runtime(
    settings: &Settings,
    threads: usize,
    main: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    base::telemetry::init(&settings.telemetry).map_err(|error| Failure::usage(error.to_string()))?;
    if let Err(error) = base::net::raise_open_files() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    base::client::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("modelway")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the process cannot start its threads: {error}")))?;
    let end = runtime.block_on(main);
    // A thread that is still blocked must not delay the exit.
    runtime.shutdown_timeout(Duration::from_millis(100));
    end
}

/// Runs one role until a signal.
async fn until_signal(mut role: Running, patience: Duration) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        failure = role.fails() => return Err(failure),
        _ = signals.next() => {}
    }
    tokio::select! {
        () = role.end(patience) => Ok(ExitCode::SUCCESS),
        _ = signals.next() => Err(at_once()),
    }
}

fn at_once() -> Failure {
    Failure::failed("ended at once, by a second signal")
}

/// Listens. All listeners are created here, so that none is open to other machines unless the settings allow it.
async fn listen(addr: &str, setting: &str, settings: &Settings) -> Result<TcpListener, Failure> {
    require_loopback(addr, setting, settings.allow_unauthenticated).map_err(|error| Failure::of(&error))?;
    bind(addr, setting).await.map_err(|error| Failure::failed(error.to_string()))
}

async fn open_store(settings: &Settings) -> Result<Store, Failure> {
    if settings.store.url.starts_with("sqlite:") {
        make_folder(&settings.data_dir)?;
    }
    let patience = Duration::from_millis(settings.store.patience_ms);
    Store::open(&settings.store.url, patience).await.map_err(|error| {
        let failure = Failure::of(&error);
        if matches!(error, store::StoreError::Unavailable(_)) {
            return failure.next("Its address is store.url (--store-url).");
        }
        failure
    })
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    base::private::folder(folder).map_err(|error| {
        Failure::failed(format!("the data folder {} cannot be made: {error}", folder.display()))
            .next("Choose another one with --data-dir.")
    })
}

/// Runs the control plane.
///
/// # Errors
/// An unusable address or database, or whatever ends it early.
pub fn control(settings: Settings) -> Result<ExitCode, Failure> {
    let threads = std::thread::available_parallelism().map_or(FEW_THREADS, usize::from);
    with_runtime(&settings.clone(), threads, async move {
        let listener = listen(&settings.control.addr, "control.addr (--addr)", &settings).await?;
        let store = open_store(&settings).await?;
        tell(format!("control plane: http://{}", address(&listener)?));
        let tasks = Tasks::new();
        let patience = Duration::from_millis(settings.control.drain_ms) + Duration::from_secs(2);
        let wake_ups = store.wake_ups();
        let run = control::run(settings.control, store, wake_ups, listener, tasks.clone(), Clock::system());
        until_signal(Running::start("control", tasks, run), patience).await
    })
}

/// Runs a gateway.
///
/// # Errors
/// An unusable address, or whatever ends it early.
pub fn gateway(settings: Settings) -> Result<ExitCode, Failure> {
    with_runtime(&settings.clone(), FEW_THREADS, async move {
        let listener = listen(&settings.gateway.addr, "gateway.addr (--addr)", &settings).await?;
        make_folder(&settings.data_dir)?;
        tell(format!("gateway: http://{}", address(&listener)?));
        let tasks = Tasks::new();
        let patience = Duration::from_millis(settings.gateway.drain_ms) + Duration::from_secs(2);
        let run = gateway::run(settings.gateway, listener, tasks.clone(), Clock::system(), modelserver::reflect);
        until_signal(Running::start("gateway", tasks, run), patience).await
    })
}

/// Runs a worker. When it stops, its replicas keep running, and the next worker adopts them.
///
/// # Errors
/// An unusable database, folder or address, or whatever ends it early.
pub fn worker(loaded: &Loaded<Settings>) -> Result<ExitCode, Failure> {
    let settings = loaded.settings.clone();
    with_runtime(&loaded.settings, FEW_THREADS, async move {
        let listener = listen(&settings.worker.addr, "worker.addr (--addr)", &settings).await?;
        make_folder(&settings.data_dir)?;
        let store = open_store(&settings).await?;
        let tasks = Tasks::new();
        let backend = open_backend(loaded, &tasks).await?;
        tell(format!("worker: http://{} ({})", address(&listener)?, backend.scope()));
        let wake_ups = store.wake_ups();
        let run = worker::run(settings.worker, store, wake_ups, backend, listener, tasks.clone(), Clock::system());
        until_signal(Running::start("worker", tasks, run), Duration::from_secs(12)).await
    })
}

async fn open_backend(loaded: &Loaded<Settings>, tasks: &Tasks) -> Result<Arc<dyn Backend>, Failure> {
    let settings = &loaded.settings;
    let clock = Clock::system();
    match settings.backend {
        BackendKind::Fake => Ok(Arc::new(FakeBackend::new(settings.fake.clone(), tasks.clone(), clock))),
        BackendKind::Process => {
            let config = serve::replica_settings(loaded);
            let backend = ProcessBackend::open(config, tasks.clone(), clock).await;
            Ok(Arc::new(backend.map_err(|error| Failure::of(&error))?))
        }
    }
}

/// The address of a listener for clients on this machine.
fn address(listener: &TcpListener) -> Result<std::net::SocketAddr, Failure> {
    let mut address = listener.local_addr().map_err(|error| Failure::failed(format!("a listener is lost: {error}")))?;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}
