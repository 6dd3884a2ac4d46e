//! The commands that look, and the one that asks a model.

use clap::Args;

use super::{Connection, Output, Patience, pair};

/// List deployments
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway list
  modelway list --status failed --label team=fraud
  modelway list -o json | jq '.items[].url'")]
pub struct List {
    /// Only those in this state: pending, active, degraded, failed, idle or deleting
    #[arg(long, value_name = "STATE")]
    pub status: Option<String>,
    /// Only those with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,
    /// Only those that serve this registered model
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Only the one with this name
    #[arg(long)]
    pub name: Option<String>,
    /// The form of the output.
    #[command(flatten)]
    pub output: Output,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Show one deployment in a line, and what is wrong with it
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway get iris
  modelway get 26 -o yaml")]
pub struct Get {
    /// Its name, its number, or md- and its number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// The form of the output.
    #[command(flatten)]
    pub output: Output,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Show everything about one deployment: what is wanted, its replicas, what is wrong, the last events
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  modelway describe iris")]
pub struct Describe {
    /// Its name, its number, or md- and its number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// The form of the output.
    #[command(flatten)]
    pub output: Output,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Show what was decided, and why
///
/// The events of a deployment that was deleted are still there under its number.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway events iris
  modelway events --follow")]
pub struct Events {
    /// Its name, its number, or md- and its number [default: all]
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: Option<String>,
    /// Go on with new ones until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// The form of the output.
    #[command(flatten)]
    pub output: Output,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Show what the replicas print
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway logs iris --tail 20
  modelway logs iris -f --replica md-1-r1-0")]
pub struct Logs {
    /// Its name, its number, or md- and its number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// Go on with new lines until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// How many lines of the past, from each replica
    #[arg(long, default_value_t = 100, value_name = "LINES")]
    pub tail: usize,
    /// Only this replica
    #[arg(long, value_name = "ID")]
    pub replica: Option<String>,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Send data to a model and show its answer
///
/// DATA is the rows alone, as a list; for a model of several inputs each row is an object by their names. Or it is a whole request, as
/// curl sends it, and is sent and answered as that: {"inputs": …}, {"instances": …}, the fields of generate, or a data frame of
/// MLflow. Without --data it shows what the model takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway predict iris --data '[[5.1, 3.5, 1.4, 0.2]]'
  modelway predict iris --data @request.json -o json
  generate-rows | modelway predict iris --data -")]
pub struct Predict {
    /// Its name, its number, or md- and its number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// JSON, @FILE, or - for standard input
    #[arg(short, long, value_name = "DATA")]
    pub data: Option<String>,
    /// The model's version [default: whatever gets the traffic]
    #[arg(long = "version", value_name = "VERSION")]
    pub model_version: Option<String>,
    /// The form of the output.
    #[command(flatten)]
    pub output: Output,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}

/// Show replicas that belong to another database, and end them
///
/// They run where a worker works, and this database did not start them: it is another one, an empty one, or an older copy that
/// was restored. They get no requests and are left alone until you end them.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway strays
  modelway strays --end md-1-r1-0 --end md-1-r1-1
  modelway strays --end-all --yes")]
pub struct Strays {
    /// End this one
    #[arg(long, value_name = "REPLICA")]
    pub end: Vec<String>,
    /// End all of them
    #[arg(long, conflicts_with = "end")]
    pub end_all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// How long to wait.
    #[command(flatten)]
    pub patience: Patience,
    /// The form of the output.
    #[command(flatten)]
    pub output: Output,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}
