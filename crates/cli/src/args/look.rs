//! The commands that read, and `predict`.

use clap::Args;

use super::common::{Connection, Output, Patience, pair};

/// List deployments
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway list
  modelway list --status failed --label team=fraud
  modelway list -o json | jq '.items[].url'")]
pub struct List {
    /// Show only deployments in this state: pending, active, degraded, failed, idle or deleting
    #[arg(long, value_name = "STATE")]
    pub status: Option<String>,
    /// Show only deployments with this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,
    /// Show only deployments of this registered model
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Show only the deployment with this name
    #[arg(long)]
    pub name: Option<String>,
    /// The output format.
    #[command(flatten)]
    pub output: Output,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}

/// Show one deployment and its errors
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway get iris
  modelway get 26 -o yaml")]
pub struct Get {
    /// Deployment: name, number, or md- and the number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// The output format.
    #[command(flatten)]
    pub output: Output,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}

/// Show the configuration, replicas, errors and latest events of one deployment
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  modelway describe iris")]
pub struct Describe {
    /// Deployment: name, number, or md- and the number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// The output format.
    #[command(flatten)]
    pub output: Output,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}

/// Show events: what was changed, and why
///
/// The events of a deleted deployment are kept under its number.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway events iris
  modelway events --follow")]
pub struct Events {
    /// Deployment: name, number, or md- and the number [default: all]
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: Option<String>,
    /// Follow new events until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// The output format.
    #[command(flatten)]
    pub output: Output,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}

/// Show the logs of the replicas
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway logs iris --tail 20
  modelway logs iris -f --replica md-1-r1-0")]
pub struct Logs {
    /// Deployment: name, number, or md- and the number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// Follow new lines until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Number of past lines to show for each replica
    #[arg(long, default_value_t = 100, value_name = "LINES")]
    pub tail: usize,
    /// Show only this replica
    #[arg(long, value_name = "ID")]
    pub replica: Option<String>,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}

/// Send a prediction request and show the answer
///
/// DATA is the rows alone, as a list; for a model of several inputs each row is an object by their names. Or it is a whole request, as
/// curl sends it, and is sent and answered as that: {"inputs": …}, {"instances": …}, the fields of generate, or a data frame of
/// MLflow. Without --data, the command shows the model's inputs.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway predict iris --data '[[5.1, 3.5, 1.4, 0.2]]'
  modelway predict iris --data @request.json -o json
  generate-rows | modelway predict iris --data -")]
pub struct Predict {
    /// Deployment: name, number, or md- and the number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// JSON, @FILE, or - for standard input
    #[arg(short, long, value_name = "DATA")]
    pub data: Option<String>,
    /// Model version [default: the one that gets the traffic]
    #[arg(long = "version", value_name = "VERSION")]
    pub model_version: Option<String>,
    /// The output format.
    #[command(flatten)]
    pub output: Output,
    /// The servers.
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
    /// The timeout of the wait.
    #[command(flatten)]
    pub patience: Patience,
    /// The output format.
    #[command(flatten)]
    pub output: Output,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}
