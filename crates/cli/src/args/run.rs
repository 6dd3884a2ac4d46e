//! The commands that run something until they are told to end.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Run everything in one process: control plane, worker, gateway
///
/// Stores all data in one folder, with an embedded database. Ctrl-C (or SIGTERM) waits for running requests, for at most
/// 30 seconds (gateway.drain_ms), then stops the replicas and exits. A second Ctrl-C stops everything at once.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  modelway up
  modelway up --data-dir /srv/modelway --gateway-addr 127.0.0.1:9080
  modelway up --store-url postgres://modelway@db/modelway")]
pub struct Up {
    /// Store all data in this folder [default: $XDG_DATA_HOME/modelway, else ~/.local/share/modelway]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Listen for predictions on this address [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub gateway_addr: Option<String>,
    /// Listen for API requests on this address [default: 127.0.0.1:8081]
    #[arg(long, value_name = "HOST:PORT")]
    pub control_addr: Option<String>,
    /// Database URL [default: a file in the data folder]
    #[arg(long, value_name = "URL")]
    pub store_url: Option<String>,
    /// Public URL of the gateway: each deployment's url begins with it [default: from --gateway-addr]
    #[arg(long, value_name = "URL")]
    pub gateway_url: Option<String>,
    /// Allow addresses other than loopback. There is no authentication: everyone who can reach them can use them
    #[arg(long)]
    pub allow_unauthenticated: bool,
}

/// Run the control plane
///
/// Serves the REST API, writes changes to the database and wakes the workers. It has no state: run as many as you
/// like over one database.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Example:
  modelway control --addr 127.0.0.1:8081 --store-url postgres://modelway@db/modelway")]
pub struct Control {
    /// Listen for API requests on this address [default: 127.0.0.1:8081]
    #[arg(long, visible_alias = "control-addr", value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// Public URL of the gateway: each deployment's url begins with it
    #[arg(long, value_name = "URL")]
    pub gateway_url: Option<String>,
    /// Database URL [default: a file in the data folder]
    #[arg(long, value_name = "URL")]
    pub store_url: Option<String>,
    /// Folder of the default database
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Allow addresses other than loopback. There is no authentication: everyone who can reach them can use them
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
/// Starts and stops replicas so that they match the database. SIGTERM stops the worker, not its replicas: the next worker adopts
/// them.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Example:
  modelway worker --store-url postgres://modelway@db/modelway --data-dir /srv/modelway")]
pub struct Worker {
    /// Backend that runs replicas: process, or fake, which starts nothing and is for measurements [default: process]
    #[arg(long, value_enum, hide_possible_values = true)]
    pub backend: Option<BackendKind>,
    /// Work on the deployments with this placement [default: local]
    #[arg(long, value_name = "NAME")]
    pub placement: Option<String>,
    /// Serve logs and metrics on this address
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// Database URL [default: a file in the data folder]
    #[arg(long, value_name = "URL")]
    pub store_url: Option<String>,
    /// Store replicas, logs and the artefact cache in this folder
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Allow addresses other than loopback. There is no authentication: everyone who can reach them can use them
    #[arg(long)]
    pub allow_unauthenticated: bool,
}

/// Run a gateway
///
/// Sends predictions to replicas. It reads its routes from the control plane, saves them on disk, and
/// keeps serving if the control plane is down.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Example:
  modelway gateway --addr 127.0.0.1:8080 --control-url http://127.0.0.1:8081")]
pub struct Gateway {
    /// Listen for predictions on this address [default: 127.0.0.1:8080]
    #[arg(long, visible_alias = "gateway-addr", value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// URL of the control plane [default: http://127.0.0.1:8081]
    #[arg(long, value_name = "URL")]
    pub control_url: Option<String>,
    /// Store the last route table and the prediction log in this folder
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Allow addresses other than loopback. There is no authentication: everyone who can reach them can use them
    #[arg(long)]
    pub allow_unauthenticated: bool,
}

/// Run only the model server, without control plane and gateway
///
/// SOURCE is a path or a URI (s3://, gs://, https://, file://; for MLflow, models:/ and runs:/). It is an ONNX file, a
/// Python file with a model class, a folder with one of them or with an MLmodel, or a folder of many models:
/// NAME/VERSION/model.onnx, with an optional NAME/config.pbtxt.
///
/// Every model supports the Open Inference Protocol V1 and V2 over REST and gRPC, all on one port. A golden.json next
/// to a model must match before the model is ready. Settings for one model are in the section [serve.models.NAME].
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
    /// Model, or folder of models
    #[arg(value_name = "SOURCE", conflicts_with = "model_uri")]
    pub source: Option<String>,
    /// Serve the first of these URIs that exists
    #[arg(long, value_name = "URI")]
    pub model_uri: Vec<String>,
    /// Name of the model [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Additional name of the model
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Version of the model
    #[arg(long, value_name = "VERSION")]
    pub model_version: Option<String>,
    /// Required digest of the files, sha256:…
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
    /// Write the reason to this file, as JSON, if the model cannot be served
    #[arg(long, value_name = "FILE")]
    pub termination_message: Option<PathBuf>,
    /// Pass this environment variable to every Python model, even if it is a credential
    #[arg(long, value_name = "NAME")]
    pub pass_env: Vec<String>,
    /// Time to keep answering after SIGTERM, in milliseconds [default: 5000]
    #[arg(long, value_name = "MS")]
    pub drain_ms: Option<u64>,
}
