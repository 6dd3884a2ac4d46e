//! The route table: what a gateway needs to serve, and how it gets it.
//!
//! A route has two halves. The [`Policy`] of an endpoint contains the decisions of the user: names, limits, recording.
//! The store writes it in the same transaction as the change. The [`Targets`] of a deployment say where requests go:
//! revisions, their shares, their replicas. The worker writes them. No field is in both halves.
//!
//! A gateway sends one request, `GET /v1/routes/watch?protocol=2&epoch=E&after=V`, and reads an endless stream of
//! [`RouteMessage`]s, one JSON object per line. Versions increase over the whole table, so "everything after V" is both
//! the snapshot (V = 0) and the deltas.
//!
//! A gateway ignores changes of an unknown kind. If a gateway must not ignore something, the endpoint lists it in
//! [`Policy::requires`].

pub mod form1;

use serde::{Deserialize, Serialize};

use crate::{
    deployment::{LogPayloads, State},
    id::{DeploymentId, EndpointId, ReplicaId, RevisionNumber},
    replica::Address,
};

/// The path of the watch on the control plane.
pub const WATCH_PATH: &str = "/v1/routes/watch";

/// The version of the messages of the watch. Version 1 is [`form1`], for gateways that send no version.
pub const PROTOCOL: u32 = 2;

/// The decisions of the user about an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The deployment whose targets get its requests.
    pub deployment: DeploymentId,
    /// The second name of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The deployment was deleted: it serves only under its id, until its replicas have ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Capabilities that a gateway needs to serve the endpoint. A gateway that lacks one refuses its requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// Request timeout in milliseconds. After it, the answer is 504.
    pub request_timeout_ms: u64,
    /// Whether a request may be sent to another replica although the first one may have begun it.
    pub idempotent: bool,
    /// Of which requests the prediction log contains inputs and outputs.
    pub log_payloads: LogPayloads,
}

/// Where the requests of a deployment go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// The state of the deployment.
    pub state: State,
    /// Why nothing serves, for the text of the 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The name, besides the id of the deployment, that all of its replicas answer to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers_to: Option<String>,
    /// The revisions that have replicas. Empty if nothing serves.
    pub revisions: Vec<RouteRevision>,
}

/// One revision of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRevision {
    /// The number of the revision.
    pub number: RevisionNumber,
    /// The model version, for the path `/versions/{v}`.
    pub model_version: String,
    /// Its weight for requests that name no version, relative to the other weights.
    pub weight: u32,
    /// The replicas that are ready.
    pub replicas: Vec<RouteReplica>,
}

/// One ready replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReplica {
    /// The name of the replica.
    pub id: ReplicaId,
    /// The address of the replica.
    pub address: Address,
}

/// One changed entry of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The version of the table with this change.
    pub version: i64,
    /// What changed.
    #[serde(flatten)]
    pub entry: Entry,
}

/// The current entry of the table: its kind, its key, and its value, which is `None` if the entry was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// An endpoint.
    Endpoint {
        /// The id of the endpoint.
        key: EndpointId,
        /// Its policy.
        value: Option<Policy>,
    },
    /// A deployment's targets.
    Targets {
        /// The id of the deployment.
        key: DeploymentId,
        /// Where they are.
        value: Option<Targets>,
    },
    /// An entry of a kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One line of the watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteMessage<C = Change> {
    /// The first line. With `reset`, the gateway removes at the next `Synced` every entry that was not sent since: its
    /// table came from another database.
    Hello {
        /// The epoch of the database.
        epoch: String,
        /// Whether the whole table follows.
        reset: bool,
    },
    /// One changed entry.
    Change(C),
    /// Everything up to this version was sent: apply the changes. Repeated as a heartbeat.
    Synced {
        /// The version of the table.
        version: i64,
    },
}

impl Policy {
    /// During a rename of the endpoint, the old name that its replicas still answer to.
    #[must_use]
    pub fn former(&self, targets: &Targets) -> Option<String> {
        let serves = !self.deleting && targets.revisions.iter().any(|revision| !revision.replicas.is_empty());
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| self.deployment.to_string());
        serves.then(|| named(&targets.answers_to)).filter(|former| *former != named(&self.name))
    }
}

/// Why a gateway that lacks these capabilities does not serve an endpoint.
#[must_use]
pub fn refusal(lacking: &[&str]) -> String {
    let names: Vec<_> = lacking.iter().map(|name| format!("`{name}`")).collect();
    format!(
        "it requires {}, which this version of the gateway does not support: upgrade the gateway",
        names.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_its_kind_key_version_and_value() {
        let text = r#"{"version":7,"kind":"targets","key":26,"value":{"state":"idle","revisions":[]}}"#;
        let change: Change = serde_json::from_str(text).expect("a change");
        let targets = Targets { state: State::Idle, reason: None, answers_to: None, revisions: Vec::new() };
        let entry = Entry::Targets { key: DeploymentId(26), value: Some(targets) };
        assert_eq!(change, Change { version: 7, entry });
        assert_eq!(serde_json::to_string(&change).expect("text"), text);
        let gone = r#"{"version":8,"kind":"endpoint","key":26,"value":null}"#;
        let change: Change = serde_json::from_str(gone).expect("a change");
        assert_eq!(change.entry, Entry::Endpoint { key: EndpointId(26), value: None });
        assert_eq!(serde_json::to_string(&change).expect("text"), gone);
    }

    #[test]
    fn a_kind_of_a_later_version_is_read_as_unknown() {
        let text = r#"{"version":7,"kind":"quota","key":"team-a","value":{"requests":[1,2.5]}}"#;
        let change: Change = serde_json::from_str(text).expect("a change");
        assert_eq!(change, Change { version: 7, entry: Entry::Unknown });
    }
}
