//! Stray replicas: they run on the machine of a worker, but do not belong to its database.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    fence::Epoch,
    id::{DeploymentId, ReplicaId, RevisionNumber},
    replica::ReplicaState,
    time::Timestamp,
};

/// Why a replica is a stray.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StrayReason {
    /// Another database started it.
    OtherDatabase,
    /// The database has no deployment with that number.
    UnknownDeployment,
    /// The database has no revision with that number, or a different one: it was restored from an older copy.
    UnknownRevision,
    /// Its deployment is placed where other workers run its replicas.
    OtherPlacement,
}

/// A replica that does not belong to this database. It gets no requests and is not restarted. It is ended only when a
/// person asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stray {
    /// The name of the replica.
    pub replica: ReplicaId,
    /// The number of its deployment, in the database that started it.
    pub deployment: DeploymentId,
    /// The number of its revision.
    pub revision: RevisionNumber,
    /// The state of the replica.
    pub state: ReplicaState,
    /// Why it is a stray.
    pub reason: StrayReason,
    /// The epoch of the database that started it. None for Modelway 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub epoch: Option<Epoch>,
    /// When its current process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub started_at: Option<Timestamp>,
    /// When a worker first saw it.
    #[serde(with = "crate::time::zulu")]
    #[schema(value_type = String)]
    pub since: Timestamp,
    /// Whether a person asked to end it.
    pub ending: bool,
}

/// The strays to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndStrays {
    /// Their names, as listed by `GET /v1/strays`.
    #[schema(min_items = 1, max_items = 1000)]
    pub replicas: Vec<ReplicaId>,
}
