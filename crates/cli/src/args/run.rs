//! The commands that run something until they are told to end.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Run everything in one process: control plane, worker, gateway
///
/// Keeps all it knows in one folder, with an embedded database. Ctrl-C (or SIGTERM) finishes what is in flight, for at most
/// 30 seconds (gateway.drain_ms), ends the replicas and then itself; a second one ends all at once.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  modelway up
  modelway up --data-dir /srv/modelway --gateway-addr 127.0.0.1:9080
  modelway up --store-url postgres://modelway@db/modelway")]
pub struct Up {
    /// Keep everything in this folder [default: $XDG_DATA_HOME/modelway, else ~/.local/share/modelway]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Take predictions at this address [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub gateway_addr: Option<String>,
    /// Take orders at this address [default: 127.0.0.1:8081]
    #[arg(long, value_name = "HOST:PORT")]
    pub control_addr: Option<String>,
    /// Keep records in this database [default: a file in the data folder]
    #[arg(long, value_name = "URL")]
    pub store_url: Option<String>,
    /// The gateway as users reach it: the beginning of each deployment's url [default: from --gateway-addr]
    #[arg(long, value_name = "URL")]
    pub gateway_url: Option<String>,
    /// Let everybody who reaches an address beyond loopback use it: there are no keys yet
    #[arg(long)]
    pub allow_unauthenticated: bool,
}

/// Run the control plane
///
/// Takes orders over REST, writes them to the database and wakes workers. It holds nothing itself: run as many as you
/// like over one database.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Example:
  modelway control --addr 127.0.0.1:8081 --store-url postgres://modelway@db/modelway")]
pub struct Control {
    /// Take orders at this address [default: 127.0.0.1:8081]
    #[arg(long, visible_alias = "control-addr", value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// The gateway as users reach it: the beginning of each deployment's url
    #[arg(long, value_name = "URL")]
    pub gateway_url: Option<String>,
    /// Keep records in this database [default: a file in the data folder]
    #[arg(long, value_name = "URL")]
    pub store_url: Option<String>,
    /// Where the default database is
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Let everybody who reaches an address beyond loopback use it: there are no keys yet
    #[arg(long)]
    pub allow_unauthenticated: bool,
}

/// Where a worker's replicas run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Processes on this machine.
    #[default]
    Process,
    /// Nowhere: they are only pretended, to measure the rest.
    Fake,
}

/// Run a worker
///
/// Makes what runs agree with what is wanted. SIGTERM ends the worker and leaves its replicas running: the next one adopts
/// them.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Example:
  modelway worker --store-url postgres://modelway@db/modelway --data-dir /srv/modelway")]
pub struct Worker {
    /// Where replicas run: process, or fake, which only pretends, to measure the rest [default: process]
    #[arg(long, value_enum, hide_possible_values = true)]
    pub backend: Option<BackendKind>,
    /// Answer for logs and metrics at this address
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// The database [default: a file in the data folder]
    #[arg(long, value_name = "URL")]
    pub store_url: Option<String>,
    /// Keep replicas, logs and the cache of artefacts in this folder
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Let everybody who reaches an address beyond loopback use it: there are no keys yet
    #[arg(long)]
    pub allow_unauthenticated: bool,
}

/// Run a gateway
///
/// Takes predictions and sends them to replicas. It learns from the control plane what to serve, keeps that on disk, and
/// serves on without the control plane.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Example:
  modelway gateway --addr 127.0.0.1:8080 --control-url http://127.0.0.1:8081")]
pub struct Gateway {
    /// Take predictions at this address [default: 127.0.0.1:8080]
    #[arg(long, visible_alias = "gateway-addr", value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// The control plane to learn from [default: http://127.0.0.1:8081]
    #[arg(long, value_name = "URL")]
    pub control_url: Option<String>,
    /// Keep the last route table and the prediction log in this folder
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Let everybody who reaches an address beyond loopback use it: there are no keys yet
    #[arg(long)]
    pub allow_unauthenticated: bool,
}

/// Serve models by themselves: no control plane, no gateway
///
/// SOURCE is a path or a URI (s3://, gs://, https://, file://, and of MLflow models:/ and runs:/). What is there says what it
/// is: an ONNX file, a Python file with a model class, a folder with one of them or with an MLmodel, or a folder of many
/// models: NAME/VERSION/model.onnx, with NAME/config.pbtxt if there is one.
///
/// Every model answers the Open Inference Protocol V1 and V2 over REST and gRPC, all on one port. A golden.json beside a
/// model must match before the model is ready. Settings for one model stand in the section [serve.models.NAME].
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  modelway serve ./model.onnx --model-name iris    # an ONNX file
  modelway serve ./sentiment                       # a folder with model.py, and its requirements.txt
  modelway serve ./models --port 9000              # many models: NAME/VERSION/model.onnx
  MLFLOW_TRACKING_URI=http://127.0.0.1:5000 modelway serve models:/churn@champion
  curl http://127.0.0.1:8080/v2/models/iris
  curl http://127.0.0.1:8080/v1/models/iris:predict -d '{\"instances\": [[5.1, 3.5, 1.4, 0.2]]}'

Ctrl-C finishes the requests that have begun and ends. All of it: docs/serving.md")]
pub struct Serve {
    /// The model or the folder of models
    #[arg(value_name = "SOURCE", conflicts_with = "model_uri")]
    pub source: Option<String>,
    /// Serve the first of these URIs that exists
    #[arg(long, value_name = "URI")]
    pub model_uri: Vec<String>,
    /// Serve it under this name [default: the folder's]
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Serve it under this name too
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Say that it is this version
    #[arg(long, value_name = "VERSION")]
    pub model_version: Option<String>,
    /// The digest that the files must have, sha256:…
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// Since when the replica's revision has had that digest
    #[arg(long, value_name = "TIME", hide = true)]
    pub pinned_since: Option<String>,
    /// Listen on this host [default: 127.0.0.1]
    #[arg(long)]
    pub host: Option<String>,
    /// Listen on this port [default: 8080]
    #[arg(long)]
    pub port: Option<u16>,
    /// Listen on this Unix socket instead
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"])]
    pub socket: Option<PathBuf>,
    /// The replica that this is
    #[arg(long, value_name = "ID")]
    pub replica_id: Option<String>,
    /// Write here, as JSON, why the model cannot be served
    #[arg(long, value_name = "FILE")]
    pub termination_message: Option<PathBuf>,
    /// Give this variable of the environment to every Python model, also if it is a credential
    #[arg(long, value_name = "NAME")]
    pub pass_env: Vec<String>,
    /// After SIGTERM keep answering for so many milliseconds [default: 5000]
    #[arg(long, value_name = "MS")]
    pub drain_ms: Option<u64>,
}
