//! The commands that change what is wanted.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{Connection, Output, Patience, duration, pair, replicas};

/// Deploy a model, or change what is deployed under a name
///
/// SOURCE is a file or folder on this machine, a URI (s3://, gs://, https://, file://), a registered version as models:/NAME/VERSION,
/// or an address of MLflow: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN/PATH.
/// With a --name that is taken, that deployment is changed: what you give is set, the rest stays. The new
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
    /// The model
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// The endpoint's name, beside its md-… number
    #[arg(long)]
    pub name: Option<String>,
    /// How many replicas [default: 1]
    #[arg(long, value_name = "N", value_parser = replicas, allow_negative_numbers = true)]
    pub replicas: Option<u32>,
    /// The model's version [default: from the source, else the first 12 digits of its digest]
    #[arg(long = "version", value_name = "VERSION")]
    pub model_version: Option<String>,
    /// An environment variable of each replica
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// An environment variable of each replica whose value is in a file on the replica's machine
    #[arg(long, value_name = "KEY=PATH", value_parser = pair)]
    pub env_from_file: Vec<(String, String)>,
    /// The interpreter of a Python model: a program or a virtual environment on the replica's machine
    #[arg(long, value_name = "PATH")]
    pub python: Option<String>,
    /// A label to find it by
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,
    /// CPU that each replica is promised, as in 500m or 2
    #[arg(long, value_name = "AMOUNT")]
    pub cpu: Option<String>,
    /// Memory that each replica is promised, as in 512Mi
    #[arg(long, value_name = "AMOUNT")]
    pub memory: Option<String>,
    /// CPU that each replica may use at most
    #[arg(long, value_name = "AMOUNT")]
    pub cpu_limit: Option<String>,
    /// Memory that each replica may use at most
    #[arg(long, value_name = "AMOUNT")]
    pub memory_limit: Option<String>,
    /// How long a request may take, as in 500ms or 30s [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// The digest that the files must have, sha256:…
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// Wait until it serves (this is the default)
    #[arg(long, overrides_with = "no_wait")]
    pub wait: bool,
    /// Do not wait until it serves
    #[arg(long)]
    pub no_wait: bool,
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

/// Make deployments as a YAML file says
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
    /// The file; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Show what would change and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until all of them serve
    #[arg(long)]
    pub wait: bool,
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

/// Set the number of replicas
///
/// 0 keeps the endpoint and runs nothing.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway scale iris 3
  modelway scale iris 0 --wait")]
pub struct Scale {
    /// Its name, its number, or md- and its number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// How many replicas
    #[arg(value_name = "N", value_parser = replicas, allow_negative_numbers = true)]
    pub replicas: u32,
    /// Wait until they are there
    #[arg(long)]
    pub wait: bool,
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
    /// Its name, its number, or md- and its number
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// The revision [default: the one that serves, or the one before the newest]
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u32).range(1..))]
    pub to: Option<u32>,
    /// Do not wait until it serves
    #[arg(long)]
    pub no_wait: bool,
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

/// Drain and remove deployments
///
/// Their replicas finish what they have begun. On a terminal it asks first.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  modelway delete iris
  modelway delete iris digits 7 --yes --wait")]
pub struct Delete {
    /// Names, numbers, or md- and a number
    #[arg(value_name = "DEPLOYMENT", required = true)]
    pub deployments: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Wait until they are gone
    #[arg(long)]
    pub wait: bool,
    /// How long to wait.
    #[command(flatten)]
    pub patience: Patience,
    /// Where to ask.
    #[command(flatten)]
    pub connection: Connection,
}
