//! The route table: what a gateway needs to serve, and how it is told.
//!
//! A route has two halves. The [`Policy`] of an endpoint is what people decided: its names, its limits, what is recorded. The
//! store writes it with the change itself. The [`Targets`] of a deployment are where requests go: revisions, their shares,
//! their replicas. The worker writes them. Neither repeats a field of the other.
//!
//! A gateway asks the control plane once, `GET /v1/routes/watch?protocol=2&epoch=E&after=V`, and reads a stream of
//! [`RouteMessage`]s, one JSON object a line, for as long as both live. Versions grow over the whole table,
//! so "everything after V" is both the snapshot (V = 0) and the deltas.
//!
//! A gateway ignores changes of a kind that it does not know. What it must not ignore, an endpoint names in
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

/// The version of the watch's messages. Version 1 is [`form1`], which gateways speak that name no version.
pub const PROTOCOL: u32 = 2;

/// What people decided about an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whose targets its requests go to.
    pub deployment: DeploymentId,
    /// Its second name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// It was deleted: it serves under its id only, until its replicas have ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// What a gateway must be able to do to serve it. One that lacks any of these refuses its requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// After this many milliseconds a request is answered with 504.
    pub request_timeout_ms: u64,
    /// Whether a request that a replica may have begun can be sent to another one.
    pub idempotent: bool,
    /// Whose inputs and outputs go into the prediction log.
    pub log_payloads: LogPayloads,
}

/// Where the requests of a deployment go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// Where the deployment stands.
    pub state: State,
    /// Why nothing serves, for the 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The name, beside the deployment's id, that all of its replicas answer to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers_to: Option<String>,
    /// The revisions that have replicas. Empty while nothing serves.
    pub revisions: Vec<RouteRevision>,
}

/// One revision of a deployment.
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

/// One entry of the table that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The table's version with this change.
    pub version: i64,
    /// What changed.
    #[serde(flatten)]
    pub entry: Entry,
}

/// An entry of the table as it is now: its kind, its key, and its value, which is `None` when it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// An endpoint.
    Endpoint {
        /// Which one.
        key: EndpointId,
        /// Its policy.
        value: Option<Policy>,
    },
    /// A deployment's targets.
    Targets {
        /// Whose.
        key: DeploymentId,
        /// Where they are.
        value: Option<Targets>,
    },
    /// Of a kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One line of the watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteMessage<C = Change> {
    /// The first line. With `reset` the gateway forgets every entry, at the next `Synced`, that was not
    /// named since: its table was another database's.
    Hello {
        /// Names the database.
        epoch: String,
        /// Whether what follows is the whole table.
        reset: bool,
    },
    /// An entry changed.
    Change(C),
    /// Everything up to this version was sent: swap the table. Repeated as a heartbeat.
    Synced {
        /// The table's version.
        version: i64,
    },
}

impl Policy {
    /// While the endpoint is renamed, the name that its replicas answer to and that is not its own any more.
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
    format!("it requires {}, which this gateway's version cannot do: upgrade the gateway", names.join(" and "))
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
