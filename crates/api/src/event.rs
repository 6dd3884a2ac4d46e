//! Events: who or what decided what about which deployment, and based on what data.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    id::{DeploymentId, RevisionNumber},
    time::Timestamp,
};

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Increases with each event.
    pub id: i64,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The revision, if the event is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionNumber>,
    /// When it happened.
    #[serde(with = "crate::time::zulu")]
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// Who or what decided: `user`, `worker` …
    pub actor: String,
    /// A stable code: `created`, `revision_created`, `scaled`, `traffic_moved`, `failed` …
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// The data that the decision was based on.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
}

/// An event that is not stored yet. The store assigns its id.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// The revision, if the event is about one.
    pub revision: Option<RevisionNumber>,
    /// Who or what decided.
    pub actor: &'static str,
    /// A stable code.
    pub kind: &'static str,
    /// A sentence for people.
    pub message: String,
    /// The data that the decision was based on.
    pub evidence: Value,
}
