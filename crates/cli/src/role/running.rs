//! A process with one role: its runtime, its folder, its database, its listener, and its end.

use std::{future::Future, path::Path, process::ExitCode, time::Duration};

use base::{
    Tasks,
    net::{bind, require_loopback},
};
use store::Store;
use tokio::{net::TcpListener, task::JoinHandle};

use super::signal::Signals;
use crate::{exit::Failure, settings::Settings};

/// Threads of a role that mostly waits for others.
pub(super) const FEW_THREADS: usize = 2;

/// A role at work.
pub(super) struct Running {
    name: &'static str,
    tasks: Tasks,
    handle: JoinHandle<Result<(), Failure>>,
}

impl Running {
    /// Starts a role on the runtime. `role` is told to end by `tasks`.
    pub(super) fn start<E: std::error::Error + 'static>(
        name: &'static str,
        tasks: Tasks,
        role: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Self {
        let failure = move |error: E| Failure::failed(format!("{name}: {}", base::error::chain(&error)));
        let handle = tasks.spawn(async move { role.await.map_err(failure) });
        Self { name, tasks, handle }
    }

    /// Waits for the role's end, which nobody asked for.
    pub(super) async fn fails(&mut self) -> Failure {
        match (&mut self.handle).await {
            Ok(Ok(())) => Failure::failed(format!("{} ended although nobody told it to", self.name)),
            Ok(Err(failure)) => failure,
            Err(error) => Failure::failed(format!("{} broke: {error}", self.name)),
        }
    }

    /// Tells the role to end and waits for it, at most `patience`.
    pub(super) async fn end(self, patience: Duration) {
        self.tasks.stop();
        if !self.handle.is_finished() && tokio::time::timeout(patience, self.handle).await.is_err() {
            tracing::warn!(role = self.name, "did not end in time");
        }
    }
}

/// Sets a process up: its log, its limits, its runtime; then runs `main` on it.
pub(super) fn with_runtime(
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
    // What still blocks a thread must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    end
}

/// Runs one role until a signal.
pub(super) async fn until_signal(mut role: Running, patience: Duration) -> Result<ExitCode, Failure> {
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

pub(super) fn at_once() -> Failure {
    Failure::failed("ended at once, by a second signal")
}

/// Listens. Whoever makes a listener comes here, so that none is open to other machines unless that is said.
pub(super) async fn listen(addr: &str, setting: &str, settings: &Settings) -> Result<TcpListener, Failure> {
    require_loopback(addr, setting, settings.allow_unauthenticated).map_err(|error| Failure::of(&error))?;
    bind(addr, setting).await.map_err(|error| Failure::failed(error.to_string()))
}

pub(super) async fn open_store(settings: &Settings) -> Result<Store, Failure> {
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

pub(super) fn make_folder(folder: &Path) -> Result<(), Failure> {
    base::private::folder(folder).map_err(|error| {
        Failure::failed(format!("the data folder {} cannot be made: {error}", folder.display()))
            .next("Choose another one with --data-dir.")
    })
}

/// Where a listener can be reached from this machine.
pub(super) fn address(listener: &TcpListener) -> Result<std::net::SocketAddr, Failure> {
    let mut address = listener.local_addr().map_err(|error| Failure::failed(format!("a listener is lost: {error}")))?;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}
