//! Ids.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The id of a deployment: an integer in the control plane, `md-{id}` in the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct DeploymentId(pub i64);

/// Written `md-26`: the model name of the deployment in the data plane.
impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "md-{}", self.0)
    }
}

/// The text is neither of the form `26` nor `md-26`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a deployment id: write a number, or `md-` and a number")]
pub struct NotADeploymentId(String);

impl FromStr for DeploymentId {
    type Err = NotADeploymentId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("md-").unwrap_or(text);
        match digits.parse::<i64>() {
            Ok(id) if id > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(Self(id)),
            _ => Err(NotADeploymentId(text.to_owned())),
        }
    }
}

/// An endpoint: the target of client requests. Today each deployment has one with the same number, but the two are
/// separate concepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub i64);

/// Written `md-26`: the permanent name of an endpoint.
impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "md-{}", self.0)
    }
}

/// The endpoint that is created with a deployment.
impl From<DeploymentId> for EndpointId {
    fn from(deployment: DeploymentId) -> Self {
        Self(deployment.0)
    }
}

/// The number of a revision within one deployment, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct RevisionNumber(pub u32);

impl fmt::Display for RevisionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One running instance of a revision. The backend chooses the name: `md-26-r3-0` for processes, the name of the pod on
/// Kubernetes. It is never reused for another revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct ReplicaId(pub String);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_id_reads_both_of_its_forms_and_no_other() {
        assert_eq!("26".parse(), Ok(DeploymentId(26)));
        assert_eq!("md-26".parse(), Ok(DeploymentId(26)));
        for wrong in ["", "md-", "0", "-1", "+1", "md--1", "iris", "1.5"] {
            assert!(wrong.parse::<DeploymentId>().is_err(), "{wrong}");
        }
    }
}
