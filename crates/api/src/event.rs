//! The decision log: who or what decided what about which deployment, on which evidence.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    id::{DeploymentId, RevisionNumber},
    time::Timestamp,
};

/// One line of the decision log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows with each event.
    pub id: i64,
    /// Which deployment.
    pub deployment: DeploymentId,
    /// Which revision, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionNumber>,
    /// When.
    #[serde(with = "crate::time::zulu")]
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// Who or what decided: `user`, `worker` …
    pub actor: String,
    /// A stable word: `created`, `revision_created`, `scaled`, `traffic_moved`, `failed` …
    pub kind: String,
    /// A sentence for a person.
    pub message: String,
    /// The figures that it was decided on.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
}

/// An event that is not yet written: the store gives it its id.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Which revision, if one.
    pub revision: Option<RevisionNumber>,
    /// Who or what decided.
    pub actor: &'static str,
    /// A stable word.
    pub kind: &'static str,
    /// A sentence for a person.
    pub message: String,
    /// The figures that it was decided on.
    pub evidence: Value,
}
