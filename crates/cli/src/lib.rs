//! The command line of Modelway: one binary with all roles and the client commands.
//!
//! A command is parsed ([`args`]), its settings are read ([`settings`]), and then it either runs roles until it is told
//! to end ([`role`]) or sends requests to a running one and prints the answer ([`client`]). Every error becomes one
//! [`exit::Failure`]: a text, what to do next, and a documented exit status.
//!
//! **Invariant:** this crate contains no use case. Roles are other crates; this one combines them.

pub mod args;
pub mod bundle;
pub mod client;
pub mod doctor;
pub mod exit;
pub mod output;
pub mod progress;
pub mod role;
pub mod settings;
pub mod tool;

use std::process::ExitCode;

use args::{Cli, Command, Golden};
use base::config::Loaded;
use exit::{Exit, Failure};
use settings::Settings;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    keep_onnxruntime_to_itself();
    if std::env::args_os().nth(1).is_some_and(|word| word == modelserver::ONNX_CHILD) {
        modelserver::onnx_child();
        return ExitCode::SUCCESS;
    }
    let cli = Cli::read();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::tell(failure.to_string());
            }
            failure.into()
        }
    }
}

/// Current builds of ONNX Runtime collect usage data as soon as the library is loaded, in a database in the home
/// directory and for a Microsoft server. This variable is the only way to opt out before that.
fn keep_onnxruntime_to_itself() {
    const OFF: &str = "ORT_DISABLE_TELEMETRY";
    if base::config::variable(OFF).is_none() {
        #[allow(unsafe_code, reason = "a library that reads its environment leaves no other way")]
        // SAFETY: the process has no other thread yet that could read the environment at the same time.
        unsafe {
            std::env::set_var(OFF, "1");
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let loaded = settings::load(&cli).map_err(|error| {
        Failure::new(Exit::Usage, error.to_string())
            .next("Show the effective settings and their sources: modelway --dump-config")
    })?;
    if cli.common.dump_config {
        output::print(loaded.dump())?;
        return Ok(ExitCode::SUCCESS);
    }
    match cli.command {
        None => {
            output::print(Cli::words().render_help().to_string())?;
            Ok(ExitCode::from(Exit::Usage as u8))
        }
        Some(Command::Completion(args)) => tool::completion(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Version(args)) => tool::version(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Up(_)) => role::up(&loaded),
        Some(Command::Control(_)) => role::control(loaded.settings),
        Some(Command::Worker(_)) => role::worker(&loaded),
        Some(Command::Gateway(_)) => role::gateway(loaded.settings),
        Some(Command::Serve(_)) => role::serve(&loaded.settings),
        Some(command) => ask(&loaded, &command).map(|()| ExitCode::SUCCESS),
    }
}

/// Runs a client command on the current thread, because it mostly waits.
fn ask(loaded: &Loaded<Settings>, command: &Command) -> Result<(), Failure> {
    let telemetry = &loaded.settings.telemetry;
    base::telemetry::init(telemetry).map_err(|error| Failure::usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::from)?;
    let config = &loaded.settings.client;
    // The allowed sources of models, and the MLflow server.
    let sources = &loaded.settings.serve.cache;
    runtime.block_on(async {
        match command {
            Command::Deploy(args) => client::deploy(config, sources, args).await,
            Command::Apply(args) => client::apply(config, sources, args).await,
            Command::Scale(args) => client::scale(config, args).await,
            Command::Rollback(args) => client::rollback(config, args).await,
            Command::Delete(args) => client::delete(config, args).await,
            Command::List(args) => client::list(config, args).await,
            Command::Get(args) => client::get(config, args).await,
            Command::Describe(args) => client::describe(config, args).await,
            Command::Events(args) => client::events(config, args).await,
            Command::Logs(args) => client::logs(config, args).await,
            Command::Predict(args) => client::predict(config, args).await,
            Command::Strays(args) => client::strays(config, args).await,
            Command::Models(command) => client::models(config, sources, command).await,
            Command::Doctor(args) => doctor::doctor(&loaded.settings, args).await,
            Command::SupportBundle(args) => bundle::support_bundle(loaded, args).await,
            Command::Golden(Golden::Record(args)) => role::record_golden(&loaded.settings, args).await,
            Command::Up(_)
            | Command::Control(_)
            | Command::Worker(_)
            | Command::Gateway(_)
            | Command::Serve(_)
            | Command::Completion(_)
            | Command::Version(_) => Ok(()),
        }
    })
}
