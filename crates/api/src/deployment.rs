//! A deployment: the specification from the user, and the status from the workers.

mod check;
mod patch;
mod read;

pub use check::{READ_ONLY, check_placement, is_mlflow};
pub(crate) use check::{check_digest, check_name, check_place, check_version};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    id::{DeploymentId, ReplicaId, RevisionNumber},
    quantity::Quantity,
    replica::ReplicaState,
    time::Timestamp,
    traffic::Share,
};

/// Maximum number of replicas of one deployment.
pub const MAX_REPLICAS: u32 = 1_000;

/// The placement of workers and deployments that name none.
pub const DEFAULT_PLACEMENT: &str = "local";

/// The kind of machine that a model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MachineType {
    /// No accelerator.
    #[default]
    Cpu,
    /// At least one GPU.
    Gpu,
}

/// Amounts of the two resources that a replica uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// CPUs: `500m` is half a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "500m")]
    pub cpu: Option<Quantity>,
    /// Memory in bytes: `512Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "512Mi")]
    pub memory: Option<Quantity>,
}

/// The model: files in a bucket, or a registered version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ModelSource {
    /// The files at `<bucket>/<prefix>/<version>/`, or at `<bucket>/<prefix>` if that does not exist.
    Bucket(BucketModel),
    /// A version in the model registry.
    Registered(RegisteredRef),
}

/// A model given by the location of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BucketModel {
    /// The name of the version; also the folder below `prefix`, if it exists.
    #[schema(example = "v1")]
    pub version: String,
    /// How many models the files contain. Only `single` is supported.
    #[serde(rename = "type")]
    #[schema(example = "single", required = false)]
    pub kind: String,
    /// `s3://…`, `gs://…`, `http(s)://…`, `file://…`, a plain path, or an MLflow address: `models:/NAME/3`,
    /// `models:/NAME@ALIAS`, `runs:/RUN/PATH`.
    #[schema(example = "s3://demmodels/")]
    pub bucket: String,
    /// The folder below the bucket. May be empty; must be empty for an MLflow address.
    #[schema(example = "models", required = false)]
    pub prefix: String,
    /// `sha256:…` of the artefact, which is checked after the download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A model given by its name in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisteredRef {
    /// The name of the registered model.
    #[schema(example = "iris")]
    pub name: String,
    /// Its version.
    #[schema(example = "v1")]
    pub version: String,
}

/// Of which requests the prediction log contains inputs and outputs. The other fields of a record are always written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogPayloads {
    /// No requests.
    #[default]
    None,
    /// One request in a hundred.
    Sample,
    /// All requests.
    All,
}

/// The specification of a deployment: everything that the user decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentSpec {
    /// The name of the deployment, a second name for its endpoint. Unique among deployments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "iris")]
    pub name: Option<String>,
    /// Labels to find the deployment by. They change nothing that runs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Which workers run its replicas: those with this placement (`worker.placement`). A new deployment that names none
    /// gets `control.default_placement`. It cannot change later; a change that leaves it out keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "local")]
    pub placement: Option<String>,
    /// The kind of machine.
    #[serde(rename = "type", default)]
    pub machine: MachineType,
    /// The model.
    pub model: ModelSource,
    /// The number of replicas. 0 keeps the endpoint and runs nothing.
    #[schema(example = 1, default = 1, minimum = 0, maximum = 1000, required = false)]
    pub replicas: u32,
    /// Resources that are reserved for each replica.
    #[serde(default)]
    pub request_res: Resources,
    /// Maximum resources of each replica.
    #[serde(default)]
    pub limit_res: Resources,
    /// Environment variables of each replica.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are read from files when a replica starts: the name of the variable, and the
    /// absolute path of the file on the machine of the replica. One line break at the end of the file is removed.
    #[serde(default)]
    pub env_from_file: BTreeMap<String, String>,
    /// The interpreter of a Python model: a program, or the folder of a virtual environment, on the machine of the
    /// replica. It overrides the environment that the model asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/opt/venv/bin/python")]
    pub python: Option<String>,
    /// Request timeout in milliseconds. After it, the answer is 504.
    #[schema(default = 30_000, minimum = 1, maximum = 86_400_000, required = false)]
    pub request_timeout_ms: u64,
    /// Whether the gateway may send a request to another replica although the first one may have begun it.
    #[schema(default = true, required = false)]
    pub idempotent: bool,
    /// Of which requests the prediction log contains inputs and outputs.
    #[serde(default)]
    pub log_payloads: LogPayloads,
}

/// The state of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its first replicas are starting, or the replicas after it was idle or failed. It stays so until all of them are
    /// ready.
    Pending,
    /// All requested replicas are ready. During a rollout, these are the replicas of the previous revision, and a note
    /// says so.
    Active,
    /// It serves with fewer replicas than requested, or with an older revision because the newest one failed.
    Degraded,
    /// Nothing serves, and retries did not help: the newest revision cannot run, crashes repeatedly, or took too long
    /// to start.
    Failed,
    /// No replicas are requested.
    Idle,
    /// It is being deleted.
    Deleting,
}

impl State {
    /// All states, with their names.
    pub const ALL: [(&'static str, Self); 6] = [
        ("pending", Self::Pending),
        ("active", Self::Active),
        ("degraded", Self::Degraded),
        ("failed", Self::Failed),
        ("idle", Self::Idle),
        ("deleting", Self::Deleting),
    ];

    /// The name of the state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, state)| *state == self).map_or("", |(word, _)| word)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a deployment is not healthy, for the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusError {
    /// A stable code for programs: `crashed`, `crash_loop`, `model_invalid`, `artifact_missing`, `golden_mismatch`,
    /// `start_timeout`, `out_of_memory`, `unresponsive`, `backend_rejected`, `backend_unavailable`, `no_worker` …
    pub code: String,
    /// A sentence that says what happened and what to do.
    pub message: String,
    /// The revision that failed.
    pub revision: RevisionNumber,
    /// The last lines of the log of the failed replica.
    #[serde(default)]
    pub log: Vec<String>,
}

/// One replica, as the worker last observed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaView {
    /// The name of the replica.
    pub id: ReplicaId,
    /// The revision that it runs.
    pub revision: RevisionNumber,
    /// The state of the replica.
    pub state: ReplicaState,
    /// How often it was restarted after it ended by itself.
    pub restarts: u32,
    /// When its current process started.
    #[schema(value_type = Option<String>)]
    pub started_at: Option<Timestamp>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The status of a deployment. Only workers write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentStatus {
    /// The state of the deployment.
    #[serde(rename = "status")]
    pub state: State,
    /// The number of ready replicas of the revision that serves; at most the requested number.
    pub ready_replicas: u32,
    /// The revision that gets the requests, or most of them. If nothing is ready, the last one that did.
    pub serving_revision: Option<RevisionNumber>,
    /// How requests are distributed over revisions.
    #[serde(default)]
    pub traffic: Vec<Share>,
    /// The artefact that is served, with the location where it was found.
    #[serde(default)]
    pub artifact: Option<String>,
    /// `sha256:…` of the served files.
    #[serde(default)]
    pub digest: Option<String>,
    /// Why the deployment is not healthy.
    #[serde(default)]
    pub error: Option<StatusError>,
    /// Facts that the user should know although nothing is wrong, such as limits that this machine cannot enforce.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The replicas.
    #[serde(default)]
    pub replica_status: Vec<ReplicaView>,
}

impl DeploymentStatus {
    /// The status of a new deployment.
    #[must_use]
    pub fn pending() -> Self {
        Self {
            state: State::Pending,
            ready_replicas: 0,
            serving_revision: None,
            traffic: Vec::new(),
            artifact: None,
            digest: None,
            error: None,
            notes: Vec::new(),
            replica_status: Vec::new(),
        }
    }
}

/// A deployment in an API response.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    /// The number of the deployment.
    #[schema(example = 26)]
    pub id: DeploymentId,
    /// The specification.
    #[serde(flatten)]
    pub spec: DeploymentSpec,
    /// The status.
    #[serde(flatten)]
    pub status: DeploymentStatus,
    /// The URL for predictions. It works once something serves.
    #[schema(example = "http://127.0.0.1:8080/v2/models/md-26/infer")]
    pub url: Option<String>,
    /// The newest revision.
    pub revision: RevisionNumber,
    /// When the deployment was created.
    #[schema(value_type = String, example = "2025-03-09T02:16:33.792720")]
    pub created_at: Timestamp,
    /// When the specification last changed.
    #[schema(value_type = String, example = "2025-03-09T02:16:33.792735")]
    pub updated_at: Timestamp,
}

impl DeploymentSpec {
    /// The placement of its replicas.
    #[must_use]
    pub fn placement(&self) -> &str {
        self.placement.as_deref().unwrap_or(DEFAULT_PLACEMENT)
    }

    /// The default request timeout.
    pub const DEFAULT_REQUEST_TIMEOUT_MS: u64 = 30_000;

    /// The default for stored revisions without a timeout.
    pub(crate) fn default_request_timeout_ms() -> u64 {
        Self::DEFAULT_REQUEST_TIMEOUT_MS
    }
}
