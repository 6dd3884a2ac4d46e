//! The arguments of the command line.
//!
//! This module only declares them: [`crate::role`] (roles) and [`crate::client`] (requests to the control plane)
//! implement them. `--help` has snapshot tests, so every change of a text is reviewed.

mod change;
mod common;
mod look;
mod models;
mod run;

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use change::{Apply, Delete, Deploy, Rollback, Scale};
pub use common::{Connection, Output, Patience};
pub use look::{Describe, Events, Get, List, Logs, Predict, Strays};
pub use models::{Golden, GoldenRecord, ModelAddVersion, ModelDelete, ModelRegister, Models};
pub use run::{BackendKind, Control, Gateway, Serve, Up, Worker};

use common::pair;

const SUMMARY: &str = "\
Deploys and serves machine-learning models.

Usage: modelway <COMMAND> [OPTIONS]

Run
  up          Run everything in one process: control plane, worker, gateway
  control     Run the control plane: the REST API
  worker      Run a worker: starts and stops replicas
  gateway     Run a gateway: sends predictions to replicas
  serve       Run only the model server

Deploy
  deploy      Deploy a model, or update a deployment
  apply       Create or update deployments from a YAML file
  scale       Set the number of replicas
  rollback    Go back to an earlier revision
  delete      Drain and remove deployments

Inspect
  list        List deployments
  get         Show one deployment and its errors
  describe    Show the configuration, replicas, errors and events of one deployment
  events      Show events: what was changed, and why
  logs        Show the logs of the replicas
  predict     Send a prediction request and show the answer
  strays      List replicas that belong to another database

Models
  models      Manage the registry: models and their immutable versions
  golden      Record a model's expected answers

Tools
  doctor          Check this installation and say what is wrong with it
  support-bundle  Write what a supporter needs to see into one file
  completion      Print the completion script for your shell
  version         Print the version
  help            Show this page, or the page of a command

Settings
  Settings come from modelway.toml, environment variables and flags. Flags override environment variables,
  and those override the file. [gateway] addr = \"…\" in the file is the variable MODELWAY__GATEWAY__ADDR
  and the flag --set gateway.addr=….

{options}

Exit status
  0  success
  1  the request was refused or failed
  2  invalid command line or settings
  3  the server does not answer
  4  accepted, but not finished in time
  5  not found
  78 serve: the model cannot be served until somebody changes it

First steps
  modelway up                              in one terminal
  modelway deploy ./model --name iris      in another
  modelway predict iris --data '[[5.1, 3.5, 1.4, 0.2]]'
";

/// Deploys and serves machine-learning models.
#[derive(Debug, Parser)]
#[command(name = "modelway", version, help_template = SUMMARY, arg_required_else_help = true)]
#[command(disable_help_subcommand = false, subcommand_required = false, max_term_width = 110)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
    /// The command.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// The command line, with its parser and its help.
    #[must_use]
    pub fn words() -> clap::Command {
        // clap prints pages with a long description in its wide layout, with a blank line after each flag. Our pages
        // use the compact layout.
        Self::command().mut_subcommands(|command| match command.get_long_about().cloned() {
            Some(text) => command.about(text).long_about(None::<&str>),
            None => command,
        })
    }

    /// Parses the arguments of this process; on an error prints it and exits.
    #[must_use]
    pub fn read() -> Self {
        match Self::from_arg_matches(&Self::words().get_matches()) {
            Ok(cli) => cli,
            Err(error) => error.exit(),
        }
    }
}

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings")]
pub struct Common {
    /// Read settings from this file [default: $MODELWAY_CONFIG or ./modelway.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one setting, for example --set gateway.max_body_bytes=1000000
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Set the log level, for example info, or per module: warn,modelway_gateway=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// Set the log format: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Print the effective settings and their sources, then exit
    #[arg(long, global = true)]
    pub dump_config: bool,
}

/// A command.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "a comment here would be help text: that is with each command's arguments")]
pub enum Command {
    Up(Up),
    Control(Control),
    Worker(Worker),
    Gateway(Gateway),
    Serve(Box<Serve>),
    Deploy(Box<Deploy>),
    Apply(Apply),
    Scale(Scale),
    Rollback(Rollback),
    Delete(Delete),
    List(List),
    Get(Get),
    Describe(Describe),
    Events(Events),
    Logs(Logs),
    Predict(Predict),
    Strays(Strays),
    #[command(subcommand)]
    Models(Models),
    #[command(subcommand)]
    Golden(Golden),
    Doctor(Doctor),
    SupportBundle(SupportBundle),
    Completion(Completion),
    Version(Version),
}

/// Check this installation and say what is wrong with it
///
/// Looks at the settings, the data directory and its disk, the database, workers, addresses, clocks and tools, and changes
/// nothing. Run it where Modelway runs, as the same user and with the same settings. The status is 1 if a check failed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelway doctor
  modelway doctor -o json | jq '.checks[] | select(.grade != \"ok\")'")]
pub struct Doctor {
    /// The folder in which everything is kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The output format.
    #[command(flatten)]
    pub output: Output,
}

/// Write what a supporter needs to see into one file
///
/// Settings, versions, what doctor finds, deployments, events, metrics and the ends of the replicas' logs. Values of variables
/// whose names say that they are secrets, and passwords in URLs, are left out. Look through it before you send it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelway support-bundle --file bundle.tar.gz")]
pub struct SupportBundle {
    /// Write to this file, which must not be there [default: modelway-support.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The folder in which everything is kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Print the completion script for your shell
///
/// Completes commands and flags. To enable it in every new shell, add the line for your shell to its start file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(modelway completion bash)          # ~/.bashrc
  source <(modelway completion zsh)           # ~/.zshrc
  modelway completion fish | source           # ~/.config/fish/config.fish")]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Print the version
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelway version -o json")]
pub struct Version {
    /// The output format.
    #[command(flatten)]
    pub output: Output,
}

#[cfg(test)]
mod tests;
