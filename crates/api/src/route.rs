//! The route table: what a gateway needs to serve, and how it is told.
//!
//! A gateway asks the control plane once, `GET /v1/routes/watch?epoch=E&after=V`, and reads a stream of
//! [`RouteMessage`]s, one JSON object a line, for as long as both live. Versions grow over the whole table,
//! so "everything after V" is both the snapshot (V = 0) and the deltas.

use serde::{Deserialize, Serialize};

use crate::{
    deployment::{LogPayloads, State},
    id::{DeploymentId, ReplicaId, RevisionNumber},
    replica::Address,
};

/// The path of the watch on the control plane.
pub const WATCH_PATH: &str = "/v1/routes/watch";

/// How one endpoint is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its second name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// While it is renamed, the name that its serving replicas still answer to, as they do not to the new one; `md-` and
    /// its id if they have no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<String>,
    /// Where the deployment stands.
    pub state: State,
    /// Why nothing serves, for the 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The revisions that have replicas. Empty while nothing serves.
    pub revisions: Vec<RouteRevision>,
    /// After this many milliseconds a request is answered with 504.
    pub request_timeout_ms: u64,
    /// Whether a request that a replica may have begun can be sent to another one.
    pub idempotent: bool,
    /// Whose inputs and outputs go into the prediction log.
    pub log_payloads: LogPayloads,
}

/// One revision of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRevision {
    /// Which one.
    pub number: RevisionNumber,
    /// The model version that `/versions/{v}` reaches it by.
    pub model_version: String,
    /// Its share of the requests that name no version, in relation to the other weights.
    pub weight: u32,
    /// The replicas that are ready.
    pub replicas: Vec<RouteReplica>,
}

/// One ready replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReplica {
    /// Its name.
    pub id: ReplicaId,
    /// Where it takes requests.
    pub address: Address,
}

/// One endpoint's newest route; `None` when it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// The table's version with this change.
    pub version: i64,
    /// Whose route.
    pub deployment: DeploymentId,
    /// The route.
    pub route: Option<Route>,
}

/// One line of the watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteMessage {
    /// The first line. With `reset` the gateway forgets every route, at the next `Synced`, that was not
    /// named since: its table was another database's.
    Hello {
        /// Names the database.
        epoch: String,
        /// Whether what follows is the whole table.
        reset: bool,
    },
    /// An endpoint changed.
    Change(RouteChange),
    /// Everything up to this version was sent: swap the table. Repeated as a heartbeat.
    Synced {
        /// The table's version.
        version: i64,
    },
}
