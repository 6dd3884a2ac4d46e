//! The route table: which endpoint a name means, now.
//!
//! Names are spread over [`SHARDS`] small maps, each behind its own atomic pointer. A reader follows one pointer
//! and never waits; a change copies the one or two maps that it touches, so that a table of 100,000 endpoints
//! costs no more to change than a small one. What is alive (requests outstanding, ejections, counters)
//! hangs on [`Revision`] and [`Replica`], which a changed endpoint takes over from the one before it.
//!
//! **Invariant:** only [`Table::apply`] changes the table, and it is called by one task at a time.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
};

use api::{
    DeploymentId,
    route::{Route, RouteChange, RouteRevision},
};
use arc_swap::ArcSwap;
use http::HeaderValue;

use super::{
    endpoint::{Endpoint, Revision},
    names::SortedNames,
    replica::Replica,
};
use crate::wire::headers;

const SHARDS: usize = 1024;

/// A name, and the endpoint that it means from now on.
type Edit = (Arc<str>, Option<Arc<Endpoint>>);
type Names = HashMap<Arc<str>, Arc<Endpoint>>;

/// All endpoints by both of their names.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Box<[ArcSwap<Names>]>,
    hasher: BuildHasherDefault<DefaultHasher>,
    /// In order, for lists and for those who misspell one.
    pub(crate) sorted: SortedNames,
    holds: AtomicBool,
    version: AtomicI64,
    endpoints: AtomicUsize,
}

impl Table {
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| ArcSwap::from_pointee(Names::new())).collect(),
            hasher: BuildHasherDefault::default(),
            sorted: SortedNames::default(),
            holds: AtomicBool::new(false),
            version: AtomicI64::new(0),
            endpoints: AtomicUsize::new(0),
        }
    }

    /// Whether a table was ever loaded: an empty one counts.
    pub(crate) fn holds(&self) -> bool {
        self.holds.load(Ordering::Acquire)
    }

    /// The version that it stands at.
    pub(crate) fn version(&self) -> i64 {
        self.version.load(Ordering::Acquire)
    }

    /// How many endpoints it has.
    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints.load(Ordering::Acquire)
    }

    /// The endpoint of a name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Endpoint>> {
        self.shards[self.shard_of(name)].load().get(name).cloned()
    }

    /// Every endpoint once, in no order. Not atomic over the whole table.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        self.shards.iter().flat_map(|shard| {
            let shard = shard.load_full();
            shard
                .iter()
                .filter(|(name, endpoint)| name.as_bytes() == endpoint.label.as_bytes())
                .map(|(_, endpoint)| Arc::clone(endpoint))
                .collect::<Vec<_>>()
        })
    }

    /// Brings a batch of changes in, of which the last on an endpoint counts, and stands at `version` then. With
    /// `reset` every endpoint that the batch does not name is forgotten.
    pub(crate) fn apply(&self, changes: Vec<RouteChange>, version: i64, reset: bool) {
        let mut newest: HashMap<DeploymentId, RouteChange> = HashMap::with_capacity(changes.len());
        for change in changes {
            newest.insert(change.deployment, change);
        }
        let mut gone: Vec<Arc<Endpoint>> = Vec::new();
        if reset {
            gone.extend(self.all().filter(|old| !newest.contains_key(&old.id)));
        }
        // Per shard: what leaves it and what enters it.
        let mut edits: HashMap<usize, Vec<Edit>> = HashMap::new();
        let mut edit = |name: Arc<str>, endpoint: Option<Arc<Endpoint>>| {
            edits.entry(self.shard_of(&name)).or_default().push((name, endpoint));
        };
        // All that leaves comes before all that enters: a name may pass from one endpoint to another.
        let mut entering = Vec::new();
        for (id, change) in newest {
            let old = self.find(&id.to_string());
            if let (None, Some(old)) = (&change.route, &old) {
                gone.push(Arc::clone(old));
            }
            if let Some(route) = change.route {
                if let Some(name) = old.as_ref().and_then(|old| old.route.name.clone())
                    && route.name.as_ref() != Some(&name)
                {
                    edit(name.into(), None);
                }
                entering.push(Arc::new(self.endpoint(id, change.version, route, old.as_deref())));
            }
        }
        for old in gone {
            edit(old.id.to_string().into(), None);
            if let Some(name) = &old.route.name {
                edit(name.as_str().into(), None);
            }
        }
        for endpoint in entering {
            if let Some(name) = &endpoint.route.name {
                edit(name.as_str().into(), Some(Arc::clone(&endpoint)));
            }
            edit(endpoint.id.to_string().into(), Some(endpoint));
        }
        for (shard, edits) in edits {
            self.edit_shard(shard, edits);
        }
        self.version.store(version, Ordering::Release);
        self.holds.store(true, Ordering::Release);
    }

    fn edit_shard(&self, shard: usize, edits: Vec<Edit>) {
        let mut names = Names::clone(&self.shards[shard].load());
        let mut sorted = self.sorted.lock();
        for (name, endpoint) in edits {
            let by_id = name.starts_with("md-");
            match endpoint {
                Some(endpoint) => {
                    sorted.insert(Arc::clone(&name));
                    if names.insert(name, endpoint).is_none() && by_id {
                        self.endpoints.fetch_add(1, Ordering::AcqRel);
                    }
                }
                None => {
                    sorted.remove(&name);
                    if names.remove(&name).is_some() && by_id {
                        self.endpoints.fetch_sub(1, Ordering::AcqRel);
                    }
                }
            }
        }
        drop(sorted);
        self.shards[shard].store(Arc::new(names));
    }

    fn endpoint(&self, id: DeploymentId, version: i64, route: Route, old: Option<&Endpoint>) -> Endpoint {
        let revisions: Box<[_]> =
            route.revisions.iter().map(|revision| Arc::new(self.revision(revision, old))).collect();
        let serving = revisions.iter().filter(|revision| !revision.replicas.is_empty());
        let total_weight = serving.map(|revision| u64::from(revision.weight)).sum();
        let live = old.map(|old| Arc::clone(&old.live)).unwrap_or_default();
        Endpoint { id, version, label: headers::value(&id.to_string()), route, revisions, total_weight, live }
    }

    fn revision(&self, route: &RouteRevision, old: Option<&Endpoint>) -> Revision {
        let old = old.and_then(|old| old.revisions.iter().find(|revision| revision.number == route.number.0));
        let replicas = route
            .replicas
            .iter()
            .map(|replica| {
                let same = old.and_then(|old| old.replicas.iter().find(|known| known.is(replica)));
                same.map_or_else(|| Arc::new(Replica::new(replica)), Arc::clone)
            })
            .collect();
        Revision {
            label: HeaderValue::from(route.number.0),
            number: route.number.0,
            model_version: route.model_version.clone(),
            weight: route.weight,
            replicas,
            live: old.map(|old| Arc::clone(&old.live)).unwrap_or_default(),
        }
    }

    fn shard_of(&self, name: &str) -> usize {
        usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
