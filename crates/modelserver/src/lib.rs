//! `modelway serve`: loads models and answers the inference protocols, REST and gRPC on one port.
//!
//! The server listens first and loads in the background, so that its state can always be queried. An async thread
//! decodes a request, checks it against the signature of the model, and puts it into the bounded queue of the model;
//! the model's own threads run it; an async thread encodes the answer. On SIGTERM the server reports that it is not
//! ready, keeps answering for the drain time, finishes the running requests, and exits.
//!
//! **Invariants:** ready means that every model is loaded, warmed up and matches its golden examples. No request ever
//! gets the result of another one, and every request gets an answer. Nothing is stored on disk except the results of
//! trials of inputs that crash the runtime.

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

/// How long sending an answer may take that came just before its timeout.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long shutdown waits for runs that no request waits for.
const LAST_RUNS: Duration = Duration::from_secs(1);

/// Serves until `tasks` are told to end, and then drains, unless `hurry` is told to end too because somebody waits at a
/// terminal. Once all models were tried, `loaded` gets the names of those that predict.
///
/// # Errors
/// Why the models cannot be served. The same error is then in the termination message file. Show it to the user and
/// exit with [`ServeError::exit_code`].
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
    // Not children of `tasks`, because connections continue while the server drains.
    let ending = Ending { draining: tasks.clone(), connections: Tasks::new(), cut: Tasks::new() };
    let connections = &ending.connections;
    let lived = tokio::select! {
        () = protocol::listen::accept(&listener, &app, &ending) => Ok(()),
        lived = life(&app, &listener, &tasks, &hurry, loaded) => lived,
    };
    if let Err(error) = lived {
        termination::write(termination.as_deref(), &app.reporter.termination(&error));
        return Err(error);
    }
    listener.close();
    // First the stop signal, then the answers: a caller who waited for a change does not ask again.
    connections.stop();
    app.reporter.close();
    if !connections.stop_and_wait(finish).await {
        tracing::warn!("some requests were not finished {} ms after the drain and are cut off", finish.as_millis());
        ending.cut.stop();
    }
    end_models(&app).await;
    Ok(())
}

/// Waits a short time for the threads of the models: if the process exits while one of them is in the runtime, it may
/// crash there, which would look like a failure.
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
    app.reporter.set_artifact(fetched.uri.clone(), files, &fetched.path);
}

/// Loads the models, serves, and drains.
async fn life(
    app: &Arc<App>,
    listener: &Listener,
    tasks: &Tasks,
    hurry: &Tasks,
    loaded: impl FnOnce(&[String]),
) -> Result<(), ServeError> {
    tokio::select! {
        started = app.repository.start(|fetched| tell_what_is_served(app, fetched)) => started?,
        // The server was never ready, so no drain is needed.
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
