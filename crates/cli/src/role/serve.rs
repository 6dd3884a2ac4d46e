//! `serve`: one model server, started by hand or as a replica.

use std::{collections::BTreeMap, process::ExitCode};

use base::{Tasks, config::Loaded, error::chain};
use modelserver::Listener;

use super::{
    running::{address, at_once, with_runtime},
    signal::{By, Signals},
};
use crate::{exit::Failure, output::tell, settings::Settings};

/// Settings of `serve` that are specific to a replica: each replica gets its own through flags.
const OF_ONE_REPLICA: [&str; 15] = [
    "source",
    "model_uri",
    "model_name",
    "alias",
    "model_version",
    "digest",
    "pinned_since",
    "model_python",
    "host",
    "port",
    "socket",
    "replica_id",
    "termination_message",
    "drain_ms",
    // Each of these becomes a variable of the replica.
    "pass_env",
];

/// The prefix of the keys for single models.
const OF_MODELS: &str = "serve.models.";

/// Serves until a signal. If a person must change the model before it can be served, exits with `EXIT_MODEL_INVALID`.
///
/// # Errors
/// An unusable address.
pub fn serve(settings: &Settings) -> Result<ExitCode, Failure> {
    let config = settings.serve.clone();
    if config.source.is_none() && config.model_uri.is_empty() {
        // Nothing is bound for it, and the exit status is not the one of an invalid model.
        return Err(Failure::usage(chain(&modelserver::ServeError::NoSource)));
    }
    // A replica is restarted by the process that started it.
    if config.replica_id.is_none() {
        modelserver::start_again_after_crashes();
    }
    modelserver::take_turns_on_one_cpu();
    with_runtime(settings, modelserver::async_threads(), Box::pin(run(config)))
}

async fn run(config: modelserver::Config) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let listener = Listener::bind(&config).await.map_err(|error| Failure::of(&error))?;
    // The socket of a replica is not printed.
    let url = match &listener {
        Listener::Tcp(listener) => Some(format!("http://{}", address(listener)?)),
        Listener::Unix(_) => None,
    };
    if let Some(url) = &url {
        tell(format!("loading; the status is at {url}/v2/health/ready"));
    }
    // Of several models, the served ones are printed; the log contains the others.
    let welcome = |names: &[String]| {
        for (url, name) in url.iter().flat_map(|url| names.iter().map(move |name| (url, name))) {
            tell(format!("serving {url}/v2/models/{name}"));
        }
    };
    let (tasks, hurry) = (Tasks::new(), Tasks::new());
    let mut serving = std::pin::pin!(modelserver::run(config, listener, tasks.clone(), hurry.clone(), welcome));
    let end = tokio::select! {
        end = &mut serving => end,
        by = signals.next() => {
            // A person who presses Ctrl-C waits for the exit, and there is no load balancer to notify.
            if by == By::Interrupt {
                hurry.stop();
            }
            tasks.stop();
            tokio::select! {
                end = serving => end,
                _ = signals.next() => return Err(at_once()),
            }
        }
    };
    match end {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tell(format!("error: {}", chain(&error)));
            Ok(ExitCode::from(error.exit_code()))
        }
    }
}

/// The settings of the process backend. Replicas inherit what the user set in `[serve]` and `[telemetry]`.
///
/// Replicas read no file and none of our variables: they get exactly the settings listed here.
pub(super) fn replica_settings(loaded: &Loaded<Settings>) -> backend::process::Config {
    let mut config = loaded.settings.process.clone();
    let mut variables = BTreeMap::new();
    variables.insert(base::config::FILE_VARIABLE.to_owned(), "/dev/null".to_owned());
    let inherited = loaded.set_below("serve").into_iter().chain(loaded.set_below("telemetry"));
    for (key, value) in inherited {
        let own = key.strip_prefix("serve.").is_some_and(|field| OF_ONE_REPLICA.contains(&field));
        if !own && !key.starts_with(OF_MODELS) {
            variables.insert(variable(&key), value);
        }
    }
    let models = &loaded.settings.serve.models;
    if !models.is_empty()
        && let Ok(text) = serde_json::to_string(models)
    {
        // As one value, because the name of a variable cannot contain every model name.
        variables.insert(variable(OF_MODELS.trim_end_matches('.')), text);
    }
    for name in &loaded.settings.serve.pass_env {
        variables.extend(base::config::variable(name).map(|value| (name.clone(), value)));
    }
    // The log of a replica is read when something is wrong with it, so it is more verbose than that of `up`.
    variables.entry(variable("telemetry.filter")).or_insert_with(|| "warn,modelway=info".to_owned());
    // Settings of the user in [process.serve_env] take precedence.
    variables.append(&mut config.serve_env);
    config.serve_env = variables;
    config
}

fn variable(key: &str) -> String {
    format!("{}{}", base::config::PREFIX, key.replace('.', "__").to_uppercase())
}

#[cfg(test)]
mod tests {
    use base::config::Layers;

    use super::*;

    #[test]
    fn replicas_inherit_what_was_set_for_all_of_them_and_nothing_of_one() {
        let text = "\
[serve]
port = 9000
queue_limit = 7
cache = { schemes = [\"file\"] }
[serve.models.\"Fraud.v2\"]
max_batch_size = 3
[telemetry]
format = \"json\"
[gateway]
retries = 1
[process.serve_env]
OMP_NUM_THREADS = \"1\"
MODELWAY__SERVE__QUEUE_LIMIT = \"8\"
";
        let loaded = Layers::new().toml("modelway.toml", text).load::<Settings>().expect("it is right");
        let mut variables = replica_settings(&loaded).serve_env;
        let child = Layers::new().file(Some("/dev/null".as_ref())).variables(variables.clone()).load::<Settings>();
        let child = child.expect("it is read back").settings.serve;
        assert_eq!((child.cache.schemes, child.models["Fraud.v2"].max_batch_size), (vec!["file".to_owned()], Some(3)));
        assert!(variables.remove("MODELWAY__SERVE__MODELS").is_some_and(|models| models.contains("Fraud.v2")));
        let expected = [
            ("MODELWAY_CONFIG", "/dev/null"),
            ("MODELWAY__SERVE__CACHE__SCHEMES", "[\"file\"]"),
            ("MODELWAY__SERVE__QUEUE_LIMIT", "8"),
            ("MODELWAY__TELEMETRY__FILTER", "warn,modelway=info"),
            ("MODELWAY__TELEMETRY__FORMAT", "json"),
            ("OMP_NUM_THREADS", "1"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(variables, BTreeMap::from(expected));
    }
}
