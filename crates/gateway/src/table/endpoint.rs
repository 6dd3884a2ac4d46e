//! The current state of one endpoint: its revisions, and their live data.

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

use super::{fatal::FatalRequests, few::Few, replica::Replica, stats::LazyStats};
use crate::wire::headers::LazyValue;

/// The capabilities of this version that an endpoint may require.
const CAPABILITIES: [&str; 0] = [];

/// The current state of one endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Which endpoint.
    pub(crate) key: EndpointId,
    /// The deployment that serves it.
    pub(crate) id: DeploymentId,
    label: LazyValue,
    /// The data from the control plane that concerns all revisions.
    pub(crate) route: Settings,
    /// The revisions, in the route's order.
    pub(crate) revisions: Few<Arc<Revision>>,
    /// The sum of the weights of the revisions that have replicas.
    pub(crate) total_weight: u64,
    /// The data that survives a change of the route.
    pub(crate) live: Arc<EndpointLive>,
}

/// The data from the control plane that concerns all revisions of an endpoint: a [`Policy`], and the [`Targets`]
/// without the revisions.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) name: Option<Box<str>>,
    /// What few endpoints have: a pointer's room is less than that of its parts.
    rare: Option<Box<Rare>>,
    pub(crate) state: State,
    pub(crate) request_timeout_ms: u64,
    pub(crate) idempotent: bool,
    pub(crate) log_payloads: LogPayloads,
    deleting: bool,
}

/// What few endpoints have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rare {
    /// The name that its replicas still answer to, while they do not to the new one.
    former: Option<String>,
    /// Why nothing serves.
    reason: Option<String>,
    /// What a gateway must be able to do.
    requires: Vec<String>,
}

impl Settings {
    /// The name that its replicas still answer to, while they do not to the new one.
    pub(crate) fn former(&self) -> Option<&str> {
        self.rare.as_deref()?.former.as_deref()
    }

    /// Why nothing serves.
    fn reason(&self) -> Option<&str> {
        self.rare.as_deref()?.reason.as_deref()
    }

    /// What a gateway must be able to do.
    fn requires(&self) -> &[String] {
        self.rare.as_deref().map_or(&[], |rare| &rare.requires)
    }
}

/// The data that an endpoint keeps when its route changes.
#[derive(Debug, Default)]
pub(crate) struct EndpointLive {
    /// Requests in flight.
    pub(crate) in_flight: AtomicUsize,
    /// Those whose body is forwarded while it arrives.
    pub(crate) streaming: AtomicUsize,
    /// Requests that crashed two replicas.
    pub(crate) fatal: FatalRequests,
    /// The number of choices of a revision.
    pub(crate) turn: AtomicU32,
    /// Answers of the gateway itself, such as 503.
    pub(crate) own: LazyStats,
}

/// One revision of an endpoint.
#[derive(Debug)]
pub(crate) struct Revision {
    label: LazyValue,
    /// The number of the revision.
    pub(crate) number: u32,
    /// The version in `/versions/{v}`.
    pub(crate) model_version: Box<str>,
    /// Its weight.
    pub(crate) weight: u32,
    /// Its replicas.
    pub(crate) replicas: Few<Arc<Replica>>,
    /// The data that survives a change of the route.
    pub(crate) live: Arc<RevisionLive>,
}

/// The data that a revision keeps when its route changes.
#[derive(Debug, Default)]
pub(crate) struct RevisionLive {
    /// The number of choices of a replica.
    pub(crate) turn: AtomicU32,
    /// Its answers.
    pub(crate) stats: LazyStats,
}

impl Endpoint {
    /// An endpoint from its policy and the targets of its deployment. Takes over the live data of `old`, its previous
    /// state. Without targets, or with a capability that this gateway lacks, it serves nothing.
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
        let rare = Rare { former: policy.former(&targets), reason: targets.reason, requires: policy.requires };
        let same = old.filter(|old| old.id == policy.deployment);
        let revisions: Few<_> =
            targets.revisions.into_iter().map(|revision| Arc::new(Revision::new(revision, same))).collect();
        let serving = revisions.iter().filter(|revision| !revision.replicas.is_empty());
        Self {
            key,
            id: policy.deployment,
            label: LazyValue::default(),
            total_weight: serving.map(|revision| u64::from(revision.weight)).sum(),
            route: Settings {
                name: policy.name.map(String::into_boxed_str),
                rare: (rare != Rare::default()).then(|| Box::new(rare)),
                state: if policy.deleting { State::Deleting } else { targets.state },
                request_timeout_ms: policy.request_timeout_ms,
                idempotent: policy.idempotent,
                log_payloads: policy.log_payloads,
                deleting: policy.deleting,
            },
            revisions,
            live: old.map(|old| Arc::clone(&old.live)).unwrap_or_default(),
        }
    }

    /// The policy that it was created from.
    pub(crate) fn to_policy(&self) -> Policy {
        Policy {
            deployment: self.id,
            name: self.route.name.as_deref().map(str::to_owned),
            deleting: self.route.deleting,
            requires: self.route.requires().to_vec(),
            request_timeout_ms: self.route.request_timeout_ms,
            idempotent: self.route.idempotent,
            log_payloads: self.route.log_payloads,
        }
    }

    /// The targets that it was created from, unless it [is refused](Self::is_refused).
    pub(crate) fn to_targets(&self) -> Targets {
        let answers_to = self.route.former().or(self.route.name.as_deref());
        Targets {
            state: self.route.state,
            reason: self.route.reason().map(str::to_owned),
            answers_to: answers_to.filter(|name| *name != self.id.to_string()).map(str::to_owned),
            revisions: self.revisions.iter().map(|revision| revision.to_route()).collect(),
        }
    }

    /// Whether it requires a capability that this gateway lacks, and so is not served.
    pub(crate) fn is_refused(&self) -> bool {
        self.route.requires().iter().any(|name| !CAPABILITIES.contains(&name.as_str()))
    }

    /// `md-26`, as a header.
    pub(crate) fn label(&self) -> &HeaderValue {
        self.label.get(|| self.id.to_string())
    }

    /// Its name for people.
    pub(crate) fn name(&self) -> String {
        self.route.name.as_deref().map_or_else(|| self.key.to_string(), str::to_owned)
    }

    /// Counts an answer of the gateway itself.
    pub(crate) fn count_refusal(&self, status: StatusCode) {
        self.live.own.get().count(status.as_u16());
    }

    /// Why it has no replica for a request: for the 503.
    pub(crate) fn why_not(&self, asked: &str) -> String {
        match (self.route.reason(), self.route.state) {
            (Some(reason), state) => format!("{asked} is {state}: {reason}"),
            (None, state) => format!("{asked} is {state} and has no replica that is ready"),
        }
    }

    /// The name that its replicas answer to, until they answer to its new name `name`.
    pub(crate) fn former_of(&self, name: &str) -> Option<&str> {
        self.route.former().filter(|_| self.route.name.as_deref() == Some(name))
    }

    /// Its number of replicas.
    pub(crate) fn total_replicas(&self) -> usize {
        self.revisions.iter().map(|revision| revision.replicas.len()).sum()
    }

    /// Whether there is a replica: of the version, if one is given.
    pub(crate) fn serves(&self, version: Option<&str>) -> bool {
        let of_version = |revision: &&Arc<Revision>| version.is_none_or(|version| *revision.model_version == *version);
        self.revisions.iter().filter(of_version).any(|revision| !revision.replicas.is_empty())
    }

    /// The versions that a path can name.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &str> {
        self.revisions.iter().map(|revision| &*revision.model_version)
    }
}

/// The required capabilities that this gateway lacks.
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
