//! Names of things.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A deployment: an integer on the control plane, `md-{id}` on the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct DeploymentId(pub i64);

/// Written `md-26`: the deployment's model name on the data plane.
impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "md-{}", self.0)
    }
}

/// The text is neither `26` nor `md-26`.
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

/// An endpoint: what clients send requests to. Today each deployment has one, of the same number, but what is asked and
/// what serves it are two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub i64);

/// Written `md-26`: the name that an endpoint always has.
impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "md-{}", self.0)
    }
}

/// The endpoint that a deployment is made with.
impl From<DeploymentId> for EndpointId {
    fn from(deployment: DeploymentId) -> Self {
        Self(deployment.0)
    }
}

/// Counts the revisions of one deployment, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct RevisionNumber(pub u32);

impl fmt::Display for RevisionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One running instance of a revision, named by its backend: `md-26-r3-0` on processes, a pod's name
/// on Kubernetes. Never reused for another revision.
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
