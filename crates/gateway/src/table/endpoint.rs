//! One endpoint as it is served now: its revisions, and what is alive on them.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize},
};

use api::{
    DeploymentId, EndpointId, RevisionNumber, State,
    deployment::LogPayloads,
    route::{self, Policy, RouteRevision, Targets},
};
use http::{HeaderValue, StatusCode};

use super::{fatal::FatalRequests, replica::Replica, stats::LazyStats};
use crate::wire::headers::LazyValue;

/// What an endpoint may require of a gateway, of which this version is capable.
const CAPABILITIES: [&str; 0] = [];

/// One endpoint as it is served now.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Which endpoint.
    pub(crate) key: EndpointId,
    /// The deployment that serves it.
    pub(crate) id: DeploymentId,
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

/// What the control plane said of all revisions of an endpoint: a [`Policy`], and the [`Targets`] without the revisions
/// themselves.
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
    deleting: bool,
    #[allow(clippy::box_collection, reason = "nearly always absent: a pointer's room is less than a vector's")]
    requires: Option<Box<Vec<String>>>,
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
    /// As its policy and its deployment's targets say. What is alive on `old`, the endpoint's state before, stays alive.
    /// Without targets nothing serves, and one that requires what this gateway cannot do serves nothing either.
    pub(crate) fn new(key: EndpointId, policy: Policy, targets: Option<Targets>, old: Option<&Self>) -> Self {
        let lacking = lacking(&policy);
        let mut targets = targets.unwrap_or(Targets {
            state: State::Pending,
            reason: None,
            answers_to: policy.name.clone(),
            revisions: Vec::new(),
        });
        if !lacking.is_empty() {
            targets.revisions.clear();
            targets.reason = Some(route::refusal(&lacking));
        }
        let former = policy.former(&targets);
        let same = old.filter(|old| old.id == policy.deployment);
        let revisions: Box<[_]> =
            targets.revisions.into_iter().map(|revision| Arc::new(Revision::new(revision, same))).collect();
        let serving = revisions.iter().filter(|revision| !revision.replicas.is_empty());
        Self {
            key,
            id: policy.deployment,
            label: LazyValue::default(),
            total_weight: serving.map(|revision| u64::from(revision.weight)).sum(),
            route: Settings {
                name: policy.name.map(String::into_boxed_str),
                former: former.map(String::into_boxed_str),
                state: if policy.deleting { State::Deleting } else { targets.state },
                reason: targets.reason.map(String::into_boxed_str),
                request_timeout_ms: policy.request_timeout_ms,
                idempotent: policy.idempotent,
                log_payloads: policy.log_payloads,
                deleting: policy.deleting,
                requires: (!policy.requires.is_empty()).then(|| Box::new(policy.requires)),
            },
            revisions,
            live: old.map(|old| Arc::clone(&old.live)).unwrap_or_default(),
        }
    }

    /// The policy that it was made from.
    pub(crate) fn to_policy(&self) -> Policy {
        Policy {
            deployment: self.id,
            name: self.route.name.as_deref().map(str::to_owned),
            deleting: self.route.deleting,
            requires: self.route.requires.as_deref().cloned().unwrap_or_default(),
            request_timeout_ms: self.route.request_timeout_ms,
            idempotent: self.route.idempotent,
            log_payloads: self.route.log_payloads,
        }
    }

    /// The targets that it was made from, unless it [is refused](Self::is_refused).
    pub(crate) fn to_targets(&self) -> Targets {
        let answers_to = self.route.former.as_deref().or(self.route.name.as_deref());
        Targets {
            state: self.route.state,
            reason: self.route.reason.as_deref().map(str::to_owned),
            answers_to: answers_to.filter(|name| *name != self.id.to_string()).map(str::to_owned),
            revisions: self.revisions.iter().map(|revision| revision.to_route()).collect(),
        }
    }

    /// Whether it requires what this gateway cannot do, and so is not served.
    pub(crate) fn is_refused(&self) -> bool {
        let requires = self.route.requires.iter().flat_map(|requires| requires.iter());
        requires.map(String::as_str).any(|name| !CAPABILITIES.contains(&name))
    }

    /// `md-26`, as a header.
    pub(crate) fn label(&self) -> &HeaderValue {
        self.label.get(|| self.id.to_string())
    }

    /// The name that people know it by.
    pub(crate) fn name(&self) -> String {
        self.route.name.as_deref().map_or_else(|| self.key.to_string(), str::to_owned)
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

/// What an endpoint requires and this gateway cannot do.
pub(super) fn lacking(policy: &Policy) -> Vec<&str> {
    policy.requires.iter().map(String::as_str).filter(|name| !CAPABILITIES.contains(name)).collect()
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
