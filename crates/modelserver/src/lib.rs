//! `modelway serve`: loads models and answers the inference protocols, REST and gRPC on one port.
//!
//! The server listens first and loads meanwhile, so that whoever started it can always ask how it stands. A
//! request is decoded on an async thread, checked against the model's signature, and put into the model's
//! bounded queue; the model's own threads run it; the answer is encoded on the async thread again. On SIGTERM
//! it says that it is not ready any more, keeps answering for the drain time, finishes what has begun, and ends.
//!
//! **Invariants:** ready means that every model is loaded, warmed and matches its golden examples. No request is
//! ever answered with another's result, and none is left without an answer. Nothing is kept on disk but what
//! was learned of inputs that end the runtime.

mod error;
mod load;
mod machine;
mod metrics;
mod mlflow;
mod onnx;
mod protocol;
mod python;
mod repository;
mod run;
mod runtime;
mod settings;
mod source;
mod termination;

use std::{sync::Arc, time::Duration};

use api::{replica::ReplicaState, revision::FoundFiles};
use base::{Tasks, serve::Ending};

pub use error::ServeError;
pub use load::golden;
pub use machine::placement::{async_threads, take_turns_on_one_cpu};
pub use onnx::{ONNX_CHILD, child::onnx_child, library::locate as locate_onnxruntime, start_again_after_crashes};
pub use protocol::grpc::{Reflected, health_proto, proto, reflect};
pub use protocol::listen::Listener;
pub use runtime::{Call, Cancel, ModelRuntime, RuntimeError, Screen, Signature, Sink};
pub use settings::config::Config;
pub use settings::{OfModels, Overrides};

use crate::protocol::app::{App, Reach};

/// What an answer that came at the end of its time may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the end waits for runs that nobody waits for any more.
const LAST_RUNS: Duration = Duration::from_secs(1);

/// Serves until `tasks` are told to end, and then drains, unless `hurry` is told to end too: somebody waits at a
/// terminal. Once all models were tried, `loaded` is told the names of those that predict.
///
/// # Errors
/// Why the models cannot be served. The same is then in the file that the configuration names for it; tell the
/// words to the user and end with [`ServeError::exit_code`].
pub async fn run(
    config: Config,
    listener: Listener,
    tasks: Tasks,
    hurry: Tasks,
    loaded: impl FnOnce(&[String]),
) -> Result<(), ServeError> {
    let reach = listener.reach();
    if reach == Reach::Network {
        let address = listener.address();
        tracing::warn!(address, "other machines can reach this server, and it asks nobody for a key");
    }
    let termination = config.termination_message.clone();
    let finish = Duration::from_millis(config.request_timeout_ms).saturating_add(LAST_WORDS);
    let app = Arc::new(App::new(config, reach, tasks.clone()));
    // Not children of `tasks`: connections go on while the server drains.
    let ending = Ending { draining: tasks.clone(), connections: Tasks::new(), cut: Tasks::new() };
    let connections = &ending.connections;
    let lived = tokio::select! {
        () = protocol::listen::accept(&listener, &app, &ending) => Ok(()),
        lived = life(&app, &listener, &tasks, &hurry, loaded) => lived,
    };
    if let Err(error) = lived {
        termination::write(termination.as_deref(), &error, app.reporter.files());
        return Err(error);
    }
    listener.close();
    // First the word to end, then the answers: whoever waited for a change asks no second time here.
    connections.stop();
    app.reporter.close();
    if !connections.stop_and_wait(finish).await {
        tracing::warn!("some requests were not finished {} ms after the drain and are cut off", finish.as_millis());
        ending.cut.stop();
    }
    end_models(&app).await;
    Ok(())
}

/// Waits a little for the models' threads: a process that exits while one of them is in the runtime may crash
/// there, and would seem to have failed.
async fn end_models(app: &App) {
    let mut models = app.models.all();
    models.extend(app.repository.leaving());
    models.iter().for_each(|model| model.close());
    let ended = async {
        while !models.iter().all(|model| model.has_ended()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(LAST_RUNS, ended).await.is_err() {
        tracing::warn!("a model still runs after its callers have left");
    }
}

fn tell_what_is_served(app: &App, fetched: &artifact::Fetched) {
    let files = fetched.digest.clone().map(|digest| FoundFiles {
        uri: fetched.resolved.clone(),
        digest,
        fingerprint: fetched.fingerprint.clone(),
    });
    app.reporter.set_artifact(fetched.uri.clone(), files);
}

/// Loads, is ready, drains.
async fn life(
    app: &Arc<App>,
    listener: &Listener,
    tasks: &Tasks,
    hurry: &Tasks,
    loaded: impl FnOnce(&[String]),
) -> Result<(), ServeError> {
    tokio::select! {
        started = app.repository.start(|fetched| tell_what_is_served(app, fetched)) => started?,
        // Nobody was told that requests are welcome, so nobody needs the drain.
        () = tasks.stopping() => {
            app.reporter.set(ReplicaState::Stopping);
            return Ok(());
        }
    };
    app.reporter.set(ReplicaState::Ready);
    let names = app.models.names();
    match app.models.fault() {
        None => tracing::info!(address = listener.address(), models = names.join(", "), "ready"),
        Some(fault) => tracing::warn!(address = listener.address(), models = names.join(", "), fault, "not ready"),
    }
    loaded(&names);
    tasks.stopping().await;
    app.reporter.set(ReplicaState::Stopping);
    let _ = tokio::time::timeout(Duration::from_millis(app.config.drain_ms), hurry.stopping()).await;
    Ok(())
}
