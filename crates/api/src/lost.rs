//! Requests that were lost with a replica: what gateways tell the control plane.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{DeploymentId, ReplicaId, RevisionNumber};

/// The path on the control plane that they are told at.
pub const LOST_PATH: &str = "/v1/routes/lost";
/// The most that are told at once.
pub const MOST_LOST: usize = 256;
/// The most ids of requests in one of them.
pub const MOST_IDS: usize = 10;

/// How requests were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The replica broke off, and nobody had told it to end.
    BrokeOff,
    /// The replica was told to end, and they took longer than it was given.
    ReplicaEnded,
    /// The gateway was told to end, and they took longer than `gateway.drain_ms`.
    GatewayEnded,
}

/// Requests that one replica did not answer, or not to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LostRequests {
    /// Tells this word from all others: said twice, it counts once.
    pub key: String,
    /// Whose requests.
    pub deployment: DeploymentId,
    /// The replica's revision.
    pub revision: RevisionNumber,
    /// The replica.
    pub replica: ReplicaId,
    /// How they were lost.
    pub how: Loss,
    /// How many.
    pub count: u64,
    /// The ids of the first ones, at most [`MOST_IDS`].
    #[serde(default)]
    pub requests: Vec<String>,
    /// What the last one's connection said.
    pub error: String,
    /// A request that may be what ended the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Suspect>,
}

/// A request that another replica had broken off with before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Suspect {
    /// Its id.
    pub request: String,
    /// The other replica.
    pub before: ReplicaId,
}
