//! `serve`: one model server, by itself or as somebody's replica.

use std::{collections::BTreeMap, process::ExitCode};

use base::{Clock, Tasks, config::Loaded};
use modelserver::Listener;

use super::{FEW_THREADS, Signals, address, at_once, with_runtime};
use crate::{
    exit::{Failure, chain},
    output::tell,
    settings::Settings,
};

/// Settings of `serve` that say which replica it is: each replica gets its own by flags.
const OF_ONE_REPLICA: [&str; 12] = [
    "source",
    "model_uri",
    "model_name",
    "alias",
    "model_version",
    "digest",
    "host",
    "port",
    "socket",
    "replica_id",
    "termination_message",
    "drain_ms",
];

/// Serves until a signal. A model that cannot be served ends it with `EXIT_MODEL_INVALID` if a person must change
/// something.
///
/// # Errors
/// An address that cannot be used.
pub fn serve(settings: &Settings) -> Result<ExitCode, Failure> {
    with_runtime(settings, FEW_THREADS, Box::pin(run(settings.serve.clone())))
}

async fn run(config: modelserver::Config) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let listener = Listener::bind(&config).await.map_err(|error| Failure::of(&error))?;
    if let Listener::Tcp(listener) = &listener {
        tell(format!("serving at http://{}", address(listener)?));
    }
    let tasks = Tasks::new();
    let mut serving = std::pin::pin!(modelserver::run(config, listener, tasks.clone(), Clock::system()));
    let end = tokio::select! {
        end = &mut serving => end,
        () = signals.next() => {
            tasks.stop();
            tokio::select! {
                end = serving => end,
                () = signals.next() => return Err(at_once()),
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

/// The settings of the process backend, whose replicas inherit what a person set in `[serve]` and `[telemetry]`.
///
/// Replicas read no file and none of our variables: they get exactly what is listed here.
pub(super) fn replica_settings(loaded: &Loaded<Settings>) -> backend::process::Config {
    let mut config = loaded.settings.process.clone();
    let mut variables = BTreeMap::new();
    variables.insert(base::config::FILE_VARIABLE.to_owned(), "/dev/null".to_owned());
    let inherited = loaded.set_below("serve").into_iter().chain(loaded.set_below("telemetry"));
    for (key, value) in inherited {
        let own = key.strip_prefix("serve.").is_some_and(|field| OF_ONE_REPLICA.contains(&field));
        if !own {
            variables.insert(variable(&key), value);
        }
    }
    // A replica's log is read when something is wrong with it, so it says more than a quiet `up`.
    variables.entry(variable("telemetry.filter")).or_insert_with(|| "warn,modelway=info".to_owned());
    // What a person wrote in [process.serve_env] wins.
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
[telemetry]
format = \"json\"
[gateway]
retries = 1
[process.serve_env]
OMP_NUM_THREADS = \"1\"
MODELWAY__SERVE__QUEUE_LIMIT = \"8\"
";
        let loaded = Layers::new().toml("modelway.toml", text).load::<Settings>().expect("it is right");
        let variables = replica_settings(&loaded).serve_env;
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
        let child = Layers::new().file(Some("/dev/null".as_ref())).variables(variables).load::<Settings>();
        assert_eq!(child.expect("it is read back").settings.serve.cache.schemes, ["file"]);
    }
}
