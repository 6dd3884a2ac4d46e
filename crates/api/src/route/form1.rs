//! The route table in the format of version 0.1.0: both halves of a route in one.
//!
//! Rows and saved tables of 0.1.0 are read in this format, and gateways of 0.1.0 get changes in it.

use serde::{Deserialize, Serialize};

use super::{Policy, RouteRevision, Targets};
use crate::{
    deployment::{LogPayloads, State},
    id::DeploymentId,
};

/// The route of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The second name of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// During a rename, the old name, if the serving replicas do not answer to the new one yet; `md-` and the id if
    /// they have no other name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<String>,
    /// The state of the deployment.
    pub state: State,
    /// Why nothing serves, for the text of the 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The revisions that have replicas. Empty if nothing serves.
    pub revisions: Vec<RouteRevision>,
    /// Request timeout in milliseconds. After it, the answer is 504.
    pub request_timeout_ms: u64,
    /// Whether a request may be sent to another replica although the first one may have begun it.
    pub idempotent: bool,
    /// Of which requests the prediction log contains inputs and outputs.
    pub log_payloads: LogPayloads,
}

/// The newest route of one endpoint; `None` if it was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// The version of the table with this change.
    pub version: i64,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The route.
    pub route: Option<Route>,
}

impl Route {
    /// Joins the two halves. An endpoint that requires a capability is shown as not serving, because no gateway of this
    /// format has capabilities.
    #[must_use]
    pub fn join(policy: &Policy, targets: &Targets) -> Self {
        let lacking: Vec<_> = policy.requires.iter().map(String::as_str).collect();
        let refused = (!lacking.is_empty()).then(|| super::refusal(&lacking));
        Self {
            name: policy.name.clone(),
            former: policy.former(targets),
            state: if policy.deleting { State::Deleting } else { targets.state },
            revisions: if refused.is_some() { Vec::new() } else { targets.revisions.clone() },
            reason: refused.or_else(|| targets.reason.clone()),
            request_timeout_ms: policy.request_timeout_ms,
            idempotent: policy.idempotent,
            log_payloads: policy.log_payloads,
        }
    }

    /// Splits the route of `deployment` into its two halves.
    #[must_use]
    pub fn split(self, deployment: DeploymentId) -> (Policy, Targets) {
        let answers_to = match self.former {
            Some(former) => Some(former).filter(|former| *former != deployment.to_string()),
            None => self.name.clone(),
        };
        let policy = Policy {
            deployment,
            name: self.name,
            deleting: self.state == State::Deleting,
            requires: Vec::new(),
            request_timeout_ms: self.request_timeout_ms,
            idempotent: self.idempotent,
            log_payloads: self.log_payloads,
        };
        (policy, Targets { state: self.state, reason: self.reason, answers_to, revisions: self.revisions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReplicaId, RevisionNumber, route::RouteReplica};

    fn route(name: Option<&str>, former: Option<&str>, state: State) -> Route {
        let replica = RouteReplica { id: ReplicaId("r".into()), address: "127.0.0.1:1".parse().expect("an address") };
        Route {
            name: name.map(str::to_owned),
            former: former.map(str::to_owned),
            state,
            reason: None,
            revisions: vec![RouteRevision {
                number: RevisionNumber(1),
                model_version: "v1".into(),
                weight: 100,
                replicas: vec![replica],
            }],
            request_timeout_ms: 7,
            idempotent: true,
            log_payloads: LogPayloads::Sample,
        }
    }

    #[test]
    fn a_route_of_this_form_is_the_same_after_it_was_split_and_joined() {
        for route in [
            route(Some("iris"), None, State::Active),
            route(None, None, State::Degraded),
            route(Some("new"), Some("old"), State::Active),
            route(Some("new"), Some("md-7"), State::Active),
            route(None, Some("old"), State::Active),
            route(None, None, State::Deleting),
            Route {
                revisions: Vec::new(),
                reason: Some("it is idle".into()),
                ..route(Some("iris"), None, State::Idle)
            },
        ] {
            let (policy, targets) = route.clone().split(DeploymentId(7));
            assert_eq!(Route::join(&policy, &targets), route);
        }
    }

    #[test]
    fn what_requires_a_capability_is_never_served_in_this_form() {
        let (policy, targets) = route(Some("iris"), None, State::Active).split(DeploymentId(7));
        let joined = Route::join(&Policy { requires: vec!["keys".into()], ..policy }, &targets);
        assert!(joined.revisions.is_empty());
        assert!(joined.reason.expect("it says why").contains("requires `keys`"));
    }
}
