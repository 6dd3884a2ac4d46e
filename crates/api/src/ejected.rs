//! Ejections of replicas: what gateways report to the control plane.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{DeploymentId, ReplicaId, RevisionNumber};

/// The path on the control plane for the reports. An older control plane answers 404.
pub const EJECTED_PATH: &str = "/v1/routes/ejected";
/// Maximum number of reports in one request.
pub const MOST_EJECTED: usize = 256;

/// Why a gateway ejected a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// No connection to it could be made.
    Unreachable,
    /// Its connection broke, or it stopped within an answer.
    BrokeOff,
    /// It failed several requests in a row.
    Failing,
    /// It had outstanding requests and did not answer a probe.
    Hung,
}

/// A replica to which a gateway sent no requests for a time, because it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ejected {
    /// Identifies this report: if it is sent twice, it counts once.
    pub key: String,
    /// The deployment of the replica.
    pub deployment: DeploymentId,
    /// The revision of the replica.
    pub revision: RevisionNumber,
    /// The replica.
    pub replica: ReplicaId,
    /// Why it was ejected the last time.
    pub cause: Cause,
    /// The failure that caused the last ejection.
    pub error: String,
    /// The number of ejections since the last report.
    pub count: u64,
    /// How long the last ejection lasts, in milliseconds. Null or missing: until the replica answers a probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
}
