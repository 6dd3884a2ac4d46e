//! One endpoint as it is served now: its revisions, and what is alive on them.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize},
};

use api::{DeploymentId, route::Route};
use http::HeaderValue;

use super::{fatal::FatalRequests, replica::Replica, stats::LazyStats};

/// One endpoint as it is served now.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Whose endpoint.
    pub(crate) id: DeploymentId,
    /// The table's version that brought this state.
    pub(crate) version: i64,
    /// `md-26`, for header and metrics.
    pub(crate) label: HeaderValue,
    /// What the control plane said.
    pub(crate) route: Route,
    /// The revisions, in the route's order.
    pub(crate) revisions: Box<[Arc<Revision>]>,
    /// The sum of the weights of the revisions that have replicas.
    pub(crate) total_weight: u64,
    /// What survives a change of the route.
    pub(crate) live: Arc<EndpointLive>,
}

/// What an endpoint keeps when its route changes.
#[derive(Debug, Default)]
pub(crate) struct EndpointLive {
    /// Requests being answered.
    pub(crate) in_flight: AtomicUsize,
    /// Those of them whose body is sent on while it comes.
    pub(crate) streaming: AtomicUsize,
    /// Requests that ended two replicas.
    pub(crate) fatal: FatalRequests,
    /// Counts choices of a revision.
    pub(crate) turn: AtomicU32,
    /// Answers of the gateway itself, such as 503.
    pub(crate) own: LazyStats,
}

/// One revision of an endpoint.
#[derive(Debug)]
pub(crate) struct Revision {
    /// Its number, for header and metrics.
    pub(crate) label: HeaderValue,
    /// Which one.
    pub(crate) number: u32,
    /// What `/versions/{v}` names it by.
    pub(crate) model_version: String,
    /// Its share.
    pub(crate) weight: u32,
    /// Its replicas.
    pub(crate) replicas: Box<[Arc<Replica>]>,
    /// What survives a change of the route.
    pub(crate) live: Arc<RevisionLive>,
}

/// What a revision keeps when its route changes.
#[derive(Debug, Default)]
pub(crate) struct RevisionLive {
    /// Counts choices of a replica.
    pub(crate) turn: AtomicU32,
    /// Its answers.
    pub(crate) stats: LazyStats,
}

impl Endpoint {
    /// The name that people know it by.
    pub(crate) fn name(&self) -> String {
        self.route.name.clone().unwrap_or_else(|| self.id.to_string())
    }

    /// Why it has no replica to send a request to: for the 503.
    pub(crate) fn why_not(&self, asked: &str) -> String {
        match (&self.route.reason, self.route.state) {
            (Some(reason), state) => format!("{asked} is {state}: {reason}"),
            (None, state) => format!("{asked} is {state} and has no replica that is ready"),
        }
    }

    /// How many replicas it has.
    pub(crate) fn total_replicas(&self) -> usize {
        self.revisions.iter().map(|revision| revision.replicas.len()).sum()
    }

    /// The versions that can be named.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &str> {
        self.revisions.iter().map(|revision| revision.model_version.as_str())
    }
}
