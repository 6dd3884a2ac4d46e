//! Lost requests: what gateways report to the control plane.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{DeploymentId, ReplicaId, RevisionNumber};

/// The path on the control plane for the reports.
pub const LOST_PATH: &str = "/v1/routes/lost";
/// Maximum number of reports in one request.
pub const MOST_LOST: usize = 256;
/// Maximum number of request ids in one report.
pub const MOST_IDS: usize = 10;

/// Why requests were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The connection to the replica broke, and the replica had not been told to stop.
    BrokeOff,
    /// The replica was told to stop, and the requests took longer than its drain time.
    ReplicaEnded,
    /// The gateway was told to stop, and the requests took longer than `gateway.drain_ms`.
    GatewayEnded,
}

/// Requests that one replica did not answer, or not completely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LostRequests {
    /// Identifies this report: if it is sent twice, it counts once.
    pub key: String,
    /// The deployment of the requests.
    pub deployment: DeploymentId,
    /// The revision of the replica.
    pub revision: RevisionNumber,
    /// The replica.
    pub replica: ReplicaId,
    /// Why they were lost.
    pub how: Loss,
    /// The number of requests.
    pub count: u64,
    /// The ids of the first requests, at most [`MOST_IDS`].
    #[serde(default)]
    pub requests: Vec<String>,
    /// The error of the last connection.
    pub error: String,
    /// A request that may have crashed the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Suspect>,
}

/// A request with which the connection to another replica had already broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Suspect {
    /// The id of the request.
    pub request: String,
    /// The other replica.
    pub before: ReplicaId,
}
