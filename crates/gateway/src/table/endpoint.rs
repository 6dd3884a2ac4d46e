//! One endpoint as it is served now: its revisions, and what is alive on them.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize},
};

use api::{
    DeploymentId, RevisionNumber, State,
    deployment::LogPayloads,
    route::{Route, RouteRevision},
};
use http::{HeaderValue, StatusCode};

use super::{fatal::FatalRequests, replica::Replica, stats::LazyStats};
use crate::wire::headers::LazyValue;

/// One endpoint as it is served now.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Whose endpoint.
    pub(crate) id: DeploymentId,
    /// The table's version that brought this state.
    pub(crate) version: i64,
    label: LazyValue,
    /// What the control plane said of all revisions.
    pub(crate) route: Settings,
    /// The revisions, in the route's order.
    pub(crate) revisions: Box<[Arc<Revision>]>,
    /// The sum of the weights of the revisions that have replicas.
    pub(crate) total_weight: u64,
    /// What survives a change of the route.
    pub(crate) live: Arc<EndpointLive>,
}

/// What the control plane said of all revisions of an endpoint: a [`Route`] without the revisions themselves.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) name: Option<Box<str>>,
    /// The name that its replicas still answer to, while they do not to the new one.
    pub(crate) former: Option<Box<str>>,
    pub(crate) state: State,
    pub(crate) reason: Option<Box<str>>,
    pub(crate) request_timeout_ms: u64,
    pub(crate) idempotent: bool,
    pub(crate) log_payloads: LogPayloads,
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
    label: LazyValue,
    /// Which one.
    pub(crate) number: u32,
    /// What `/versions/{v}` names it by.
    pub(crate) model_version: Box<str>,
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
    /// As `route` says. What is alive on `old`, the endpoint's state before, stays alive.
    pub(crate) fn new(id: DeploymentId, version: i64, route: Route, old: Option<&Self>) -> Self {
        let revisions: Box<[_]> =
            route.revisions.into_iter().map(|revision| Arc::new(Revision::new(revision, old))).collect();
        let serving = revisions.iter().filter(|revision| !revision.replicas.is_empty());
        Self {
            id,
            version,
            label: LazyValue::default(),
            route: Settings {
                name: route.name.map(String::into_boxed_str),
                former: route.former.map(String::into_boxed_str),
                state: route.state,
                reason: route.reason.map(String::into_boxed_str),
                request_timeout_ms: route.request_timeout_ms,
                idempotent: route.idempotent,
                log_payloads: route.log_payloads,
            },
            total_weight: serving.map(|revision| u64::from(revision.weight)).sum(),
            revisions,
            live: old.map(|old| Arc::clone(&old.live)).unwrap_or_default(),
        }
    }

    /// The route that it was made from.
    pub(crate) fn to_route(&self) -> Route {
        Route {
            name: self.route.name.as_deref().map(str::to_owned),
            former: self.route.former.as_deref().map(str::to_owned),
            state: self.route.state,
            reason: self.route.reason.as_deref().map(str::to_owned),
            revisions: self.revisions.iter().map(|revision| revision.to_route()).collect(),
            request_timeout_ms: self.route.request_timeout_ms,
            idempotent: self.route.idempotent,
            log_payloads: self.route.log_payloads,
        }
    }

    /// `md-26`, as a header.
    pub(crate) fn label(&self) -> &HeaderValue {
        self.label.get(|| self.id.to_string())
    }

    /// The name that people know it by.
    pub(crate) fn name(&self) -> String {
        self.route.name.as_deref().map_or_else(|| self.id.to_string(), str::to_owned)
    }

    /// Counts an answer of the gateway's own.
    pub(crate) fn count_refusal(&self, status: StatusCode) {
        self.live.own.get().count(status.as_u16());
    }

    /// Why it has no replica to send a request to: for the 503.
    pub(crate) fn why_not(&self, asked: &str) -> String {
        match (&self.route.reason, self.route.state) {
            (Some(reason), state) => format!("{asked} is {state}: {reason}"),
            (None, state) => format!("{asked} is {state} and has no replica that is ready"),
        }
    }

    /// The name that its replicas answer to while they do not to `name`, its new one.
    pub(crate) fn former_of(&self, name: &str) -> Option<&str> {
        self.route.former.as_deref().filter(|_| self.route.name.as_deref() == Some(name))
    }

    /// How many replicas it has.
    pub(crate) fn total_replicas(&self) -> usize {
        self.revisions.iter().map(|revision| revision.replicas.len()).sum()
    }

    /// Whether there is a replica: of the version, where one is named.
    pub(crate) fn serves(&self, version: Option<&str>) -> bool {
        let of_version = |revision: &&Arc<Revision>| version.is_none_or(|version| *revision.model_version == *version);
        self.revisions.iter().filter(of_version).any(|revision| !revision.replicas.is_empty())
    }

    /// The versions that can be named.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &str> {
        self.revisions.iter().map(|revision| &*revision.model_version)
    }
}

impl Revision {
    fn new(route: RouteRevision, endpoint: Option<&Endpoint>) -> Self {
        let old = endpoint.and_then(|old| old.revisions.iter().find(|revision| revision.number == route.number.0));
        let replicas = route.replicas.into_iter().map(|replica| {
            let same = old.and_then(|old| old.replicas.iter().find(|known| known.is(&replica)));
            same.map_or_else(|| Arc::new(Replica::new(replica)), Arc::clone)
        });
        Self {
            label: LazyValue::default(),
            number: route.number.0,
            weight: route.weight,
            replicas: replicas.collect(),
            model_version: route.model_version.into_boxed_str(),
            live: old.map(|old| Arc::clone(&old.live)).unwrap_or_default(),
        }
    }

    fn to_route(&self) -> RouteRevision {
        RouteRevision {
            number: RevisionNumber(self.number),
            model_version: self.model_version.as_ref().to_owned(),
            weight: self.weight,
            replicas: self.replicas.iter().map(|replica| replica.to_route()).collect(),
        }
    }

    /// Its number, as a header.
    pub(crate) fn label(&self) -> &HeaderValue {
        self.label.get(|| self.number.to_string())
    }
}
