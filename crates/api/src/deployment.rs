//! A deployment: what a user asks for, and what became of it.

mod patch;
mod read;

pub use read::{READ_ONLY, is_mlflow};
pub(crate) use read::{check_digest, check_name, check_place, check_version};

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

/// The most replicas that one deployment may ask for.
pub const MAX_REPLICAS: u32 = 1_000;

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
    /// CPUs: `500m` is half of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "500m")]
    pub cpu: Option<Quantity>,
    /// Bytes: `512Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "512Mi")]
    pub memory: Option<Quantity>,
}

/// Which model: the files in a bucket, or a registered version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ModelSource {
    /// The files at `<bucket>/<prefix>/<version>/`, or at `<bucket>/<prefix>` where that is absent.
    Bucket(BucketModel),
    /// A version in the model registry.
    Registered(RegisteredRef),
}

/// A model by the place of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BucketModel {
    /// The version's name; also a folder below `prefix` where there is one.
    #[schema(example = "v1")]
    pub version: String,
    /// How many models the files hold. Only `single` for now.
    #[serde(rename = "type")]
    #[schema(example = "single", required = false)]
    pub kind: String,
    /// `s3://…`, `gs://…`, `http(s)://…`, `file://…`, a plain path, or an address of MLflow: `models:/NAME/3`,
    /// `models:/NAME@ALIAS`, `runs:/RUN/PATH`.
    #[schema(example = "s3://demmodels/")]
    pub bucket: String,
    /// The folder below the bucket; may be empty, and is for an address of MLflow.
    #[schema(example = "models", required = false)]
    pub prefix: String,
    /// `sha256:…` of the artefact, checked after download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A model by its name in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegisteredRef {
    /// The registered model.
    #[schema(example = "iris")]
    pub name: String,
    /// Its version.
    #[schema(example = "v1")]
    pub version: String,
}

/// Whose inputs and outputs go into the prediction log. The rest of a record is always kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogPayloads {
    /// Nobody's.
    #[default]
    None,
    /// Those of one request in a hundred.
    Sample,
    /// Everybody's.
    All,
}

/// Everything that a user decides about a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentSpec {
    /// A second name for the endpoint, unique among deployments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "iris")]
    pub name: Option<String>,
    /// Words to find it by; they change nothing that runs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The kind of machine.
    #[serde(rename = "type", default)]
    pub machine: MachineType,
    /// The model.
    pub model: ModelSource,
    /// How many replicas should run; 0 keeps the endpoint and runs nothing.
    #[schema(example = 1, default = 1, minimum = 0, maximum = 1000, required = false)]
    pub replicas: u32,
    /// What each replica is promised.
    #[serde(default)]
    pub request_res: Resources,
    /// What each replica may use at most.
    #[serde(default)]
    pub limit_res: Resources,
    /// Environment variables of each replica.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are read from files when a replica starts: the variable's name, and the
    /// file's whole path on the machine of the replica. One line break at the end of the file is left out.
    #[serde(default)]
    pub env_from_file: BTreeMap<String, String>,
    /// The interpreter of a Python model, whatever environment it asks for: a program, or the folder of a virtual
    /// environment, on the machine of the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/opt/venv/bin/python")]
    pub python: Option<String>,
    /// After this many milliseconds a request is answered with 504.
    #[schema(default = 30_000, minimum = 1, maximum = 86_400_000, required = false)]
    pub request_timeout_ms: u64,
    /// Whether a request that a replica may have begun can be sent to another one.
    #[schema(default = true, required = false)]
    pub idempotent: bool,
    /// Whose inputs and outputs go into the prediction log.
    #[serde(default)]
    pub log_payloads: LogPayloads,
}

/// Where a deployment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its first replicas start, or those after it was idle or failed; until all of them are ready.
    Pending,
    /// It serves as it should: every replica that was asked for is ready. While a change rolls out, those
    /// are the replicas of the revision before it, and a note says so.
    Active,
    /// It serves, but with fewer replicas than asked for, or with an older revision because the newest one
    /// failed.
    Degraded,
    /// Nothing serves, and trying again has not helped: the newest revision cannot run, ends over and over,
    /// or has taken too long.
    Failed,
    /// No replicas were asked for.
    Idle,
    /// It is being taken down.
    Deleting,
}

impl State {
    /// All states, with the words that they are written with.
    pub const ALL: [(&'static str, Self); 6] = [
        ("pending", Self::Pending),
        ("active", Self::Active),
        ("degraded", Self::Degraded),
        ("failed", Self::Failed),
        ("idle", Self::Idle),
        ("deleting", Self::Deleting),
    ];

    /// The word that it is written with.
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

/// Why a deployment is not as it should be, in the user's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusError {
    /// A stable word for programs: `crashed`, `crash_loop`, `model_invalid`, `artifact_missing`, `golden_mismatch`,
    /// `start_timeout`, `out_of_memory`, `unresponsive`, `backend_rejected`, `backend_unavailable` …
    pub code: String,
    /// A sentence: what happened and what to do.
    pub message: String,
    /// The revision that it happened to.
    pub revision: RevisionNumber,
    /// The last lines of the failing replica's log.
    #[serde(default)]
    pub log: Vec<String>,
}

/// One replica, as the worker last saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaView {
    /// Its name.
    pub id: ReplicaId,
    /// What it runs.
    pub revision: RevisionNumber,
    /// Where it stands.
    pub state: ReplicaState,
    /// How often it was started again after it ended by itself.
    pub restarts: u32,
    /// When its present process started.
    #[schema(value_type = Option<String>)]
    pub started_at: Option<Timestamp>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a deployment: written by workers only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentStatus {
    /// Where it stands.
    #[serde(rename = "status")]
    pub state: State,
    /// How many replicas of the revision that serves are ready; at most as many as are wanted.
    pub ready_replicas: u32,
    /// The revision that requests go to, or most of them; while nothing is ready, the one that they went to last.
    pub serving_revision: Option<RevisionNumber>,
    /// How requests are shared out among revisions.
    #[serde(default)]
    pub traffic: Vec<Share>,
    /// The artefact that is served, where it was found.
    #[serde(default)]
    pub artifact: Option<String>,
    /// `sha256:…` of the files that are served.
    #[serde(default)]
    pub digest: Option<String>,
    /// Why it is not as it should be.
    #[serde(default)]
    pub error: Option<StatusError>,
    /// What a user should know although nothing is wrong, such as limits that this machine cannot enforce.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The replicas.
    #[serde(default)]
    pub replica_status: Vec<ReplicaView>,
}

impl DeploymentStatus {
    /// What a new deployment shows.
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

/// A deployment as the control plane answers it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    /// The deployment's number.
    #[schema(example = 26)]
    pub id: DeploymentId,
    /// What is wanted.
    #[serde(flatten)]
    pub spec: DeploymentSpec,
    /// What became of it.
    #[serde(flatten)]
    pub status: DeploymentStatus,
    /// Where to send predictions, once something serves.
    #[schema(example = "http://127.0.0.1:8080/v2/models/md-26/infer")]
    pub url: Option<String>,
    /// The newest revision.
    pub revision: RevisionNumber,
    /// When it was created.
    #[schema(value_type = String, example = "2025-03-09T02:16:33.792720")]
    pub created_at: Timestamp,
    /// When its specification last changed.
    #[schema(value_type = String, example = "2025-03-09T02:16:33.792735")]
    pub updated_at: Timestamp,
}

impl DeploymentSpec {
    /// What requests without a timeout of their own get.
    pub const DEFAULT_REQUEST_TIMEOUT_MS: u64 = 30_000;

    /// The same, for revisions that were written down without.
    pub(crate) fn default_request_timeout_ms() -> u64 {
        Self::DEFAULT_REQUEST_TIMEOUT_MS
    }
}
