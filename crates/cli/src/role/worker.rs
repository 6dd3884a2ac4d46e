//! The worker.

use std::{process::ExitCode, sync::Arc, time::Duration};

use backend::{Backend, fake::FakeBackend, process::ProcessBackend};
use base::{Clock, Tasks, config::Loaded};

use super::{
    running::{FEW_THREADS, Running, address, listen, make_folder, open_store, until_signal, with_runtime},
    serve,
};
use crate::{args::BackendKind, exit::Failure, output::tell, settings::Settings};

/// Runs a worker. At its end its replicas run on, for the next one to adopt.
///
/// # Errors
/// A database, a folder or an address that cannot be used, or whatever ends it early.
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

pub(super) async fn open_backend(loaded: &Loaded<Settings>, tasks: &Tasks) -> Result<Arc<dyn Backend>, Failure> {
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
