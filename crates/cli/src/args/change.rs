//! The commands that change deployments.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::common::{Connection, Output, Patience, duration, pair, replicas};

/// Deploy a model, or update a deployment
///
/// SOURCE is a file or folder on this machine, a URI (s3://, gs://, https://, file://), a registered version as models:/NAME/VERSION,
/// or an MLflow URI: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN/PATH.
/// If a deployment with this --name exists, it is updated: the flags you give are set, other fields stay. The new
/// revision starts beside the old one, and requests move when it is ready. Changed files make a new revision too.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway deploy ./iris --name iris
  modelway deploy s3://models/iris/3 --name iris --replicas 2 --memory 256Mi
  modelway deploy models:/iris/v3 --name iris --env OMP_NUM_THREADS=1 --no-wait
  modelway deploy models:/churn@champion --name churn   # from the MLflow server in MLFLOW_TRACKING_URI
  modelway deploy ./churn --name churn --env-from-file DB_PASSWORD=/run/secrets/db --python ./venv")]
pub struct Deploy {
    /// Model to use
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Name of the endpoint; it also has an md-… number
    #[arg(long)]
    pub name: Option<String>,
    /// Number of replicas [default: 1]
    #[arg(long, value_name = "N", value_parser = replicas, allow_negative_numbers = true)]
    pub replicas: Option<u32>,
    /// Placement: run the replicas on the workers with this placement [default: control.default_placement]
    #[arg(long, value_name = "NAME")]
    pub placement: Option<String>,
    /// Model version [default: from the source, else the first 12 digits of its digest]
    #[arg(long = "version", value_name = "VERSION")]
    pub model_version: Option<String>,
    /// Set an environment variable of each replica
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// Set an environment variable of each replica from a file on the replica's machine
    #[arg(long, value_name = "KEY=PATH", value_parser = pair)]
    pub env_from_file: Vec<(String, String)>,
    /// Interpreter of a Python model: a program or a virtual environment on the replica's machine
    #[arg(long, value_name = "PATH")]
    pub python: Option<String>,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,
    /// CPU request of each replica, for example 500m or 2
    #[arg(long, value_name = "AMOUNT")]
    pub cpu: Option<String>,
    /// Memory request of each replica, for example 512Mi
    #[arg(long, value_name = "AMOUNT")]
    pub memory: Option<String>,
    /// CPU limit of each replica
    #[arg(long, value_name = "AMOUNT")]
    pub cpu_limit: Option<String>,
    /// Memory limit of each replica
    #[arg(long, value_name = "AMOUNT")]
    pub memory_limit: Option<String>,
    /// Request timeout, for example 500ms or 30s [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Required digest of the files, sha256:…
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// Wait until it is ready (the default)
    #[arg(long, overrides_with = "no_wait")]
    pub wait: bool,
    /// Return without waiting until it is ready
    #[arg(long)]
    pub no_wait: bool,
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

/// Create or update deployments from a YAML file
///
/// Each document is a deployment as POST /v1/modelDeployment takes it; `name` is required and finds the one to change. Applying
/// the same file again changes nothing. Every fault of every document is reported before anything is changed.
/// A relative path as `bucket` is taken from the file's folder.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway apply -f models.yaml --dry-run
  modelway apply -f models.yaml --wait
  cat models.yaml | modelway apply -f -

A document:
  name: iris
  replicas: 2
  model:
    bucket: s3://models
    prefix: iris
    version: \"3\"")]
pub struct Apply {
    /// File to read; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Show what would change, without changing it
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until all deployments are ready
    #[arg(long)]
    pub wait: bool,
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

/// Set the number of replicas
///
/// 0 stops all replicas and keeps the endpoint.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway scale iris 3
  modelway scale iris 0 --wait")]
pub struct Scale {
    /// Deployment: name, number, or md- and the number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// Number of replicas
    #[arg(value_name = "N", value_parser = replicas, allow_negative_numbers = true)]
    pub replicas: u32,
    /// Wait until they are ready
    #[arg(long)]
    pub wait: bool,
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

/// Go back to an earlier revision
///
/// What runs is again what that revision ran: the same model, variables and resources. The number of replicas stays.
/// Replicas of that revision that still run go on; nothing is started for them.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway rollback iris
  modelway rollback iris --to 3")]
pub struct Rollback {
    /// Deployment: name, number, or md- and the number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// Revision to go back to [default: the one that serves, or the one before the newest]
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u32).range(1..))]
    pub to: Option<u32>,
    /// Return without waiting until it is ready
    #[arg(long)]
    pub no_wait: bool,
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

/// Drain and remove deployments
///
/// Replicas finish their running requests. On a terminal, the command asks for confirmation.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway delete iris
  modelway delete iris digits 7 --yes --wait")]
pub struct Delete {
    /// Deployments: names, numbers, or md- and a number
    #[arg(value_name = "DEPLOYMENT", required = true)]
    pub deployments: Vec<String>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
    /// Wait until they are removed
    #[arg(long)]
    pub wait: bool,
    /// The timeout of the wait.
    #[command(flatten)]
    pub patience: Patience,
    /// The control plane.
    #[command(flatten)]
    pub connection: Connection,
}
