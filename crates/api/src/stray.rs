//! Replicas that run where a database's workers work, and are not that database's.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    fence::Epoch,
    id::{DeploymentId, ReplicaId, RevisionNumber},
    replica::ReplicaState,
    time::Timestamp,
};

/// Why a replica is nobody's here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StrayReason {
    /// Another database started it.
    OtherDatabase,
    /// The database has no deployment of that number.
    UnknownDeployment,
    /// The database has another revision of that number, or none: it was restored from an older copy.
    UnknownRevision,
}

/// A replica that nobody here started. It takes no traffic, is not started again, and is ended only when a person asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stray {
    /// Its name.
    pub replica: ReplicaId,
    /// The number of the deployment that it was started for, in the database that it belongs to.
    pub deployment: DeploymentId,
    /// The number of its revision.
    pub revision: RevisionNumber,
    /// Where it stands.
    pub state: ReplicaState,
    /// Why it is nobody's here.
    pub reason: StrayReason,
    /// The epoch of the database that started it. None if that was Modelway 0.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub epoch: Option<Epoch>,
    /// When its present process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub started_at: Option<Timestamp>,
    /// Since when it is known here.
    #[serde(with = "crate::time::zulu")]
    #[schema(value_type = String)]
    pub since: Timestamp,
    /// Whether a person asked to end it.
    pub ending: bool,
}

/// Which strays to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndStrays {
    /// Their names, as `GET /v1/strays` lists them.
    #[schema(min_items = 1, max_items = 1000)]
    pub replicas: Vec<ReplicaId>,
}
