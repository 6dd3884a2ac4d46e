//! Runs roles until they are told to end, or until one of them fails.
//!
//! Each role is the `run` of another crate, with its own section of the settings and a listener that is bound here
//! before any other work. So an address that is in use is reported at once, without side effects.

mod golden;
mod lock;
mod running;
mod serve;
mod signal;
mod up;
mod worker;

use std::{process::ExitCode, time::Duration};

use base::{Clock, Tasks};

pub use golden::record as record_golden;
pub use serve::serve;
pub use up::up;
pub use worker::worker;

use self::running::{FEW_THREADS, Running, address, listen, make_folder, open_store, until_signal, with_runtime};
use crate::{exit::Failure, output::tell, settings::Settings};

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
