//! The route table: which endpoint a name means, now.
//!
//! Endpoints are found by their ids and by their names in [`Shards`], so that a table of 100,000 endpoints costs no
//! more to change than a small one. What is alive (requests outstanding, ejections, counters) hangs on
//! [`Revision`](super::endpoint::Revision) and [`Replica`](super::replica::Replica), which a changed endpoint takes over
//! from the one before it.
//!
//! **Invariant:** only [`Table::apply`] changes the table, and it is called by one task at a time.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicIsize, Ordering},
    },
};

use api::{DeploymentId, route::RouteChange};
use arc_swap::ArcSwap;

use super::{
    endpoint::Endpoint,
    names::{self, Named, SortedNames},
    shards::{Key, Shards},
};

/// An endpoint by its id.
#[derive(Clone, Debug)]
struct ById(Arc<Endpoint>);

impl Key for ById {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Borrow<DeploymentId> for ById {
    fn borrow(&self) -> &DeploymentId {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

/// All endpoints by both of their names.
#[derive(Debug)]
pub(crate) struct Table {
    by_id: Shards<ById>,
    by_name: Shards<Named>,
    /// Names of endpoints that are being renamed, by which their replicas still answer.
    former: ArcSwap<HashMap<Box<str>, DeploymentId>>,
    /// Names in order, for lists and for those who misspell one.
    sorted: SortedNames,
    holds: AtomicBool,
    version: AtomicI64,
    endpoints: AtomicIsize,
}

impl Table {
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self {
            by_id: Shards::new(),
            by_name: Shards::new(),
            former: ArcSwap::default(),
            sorted: SortedNames::default(),
            holds: AtomicBool::new(false),
            version: AtomicI64::new(0),
            endpoints: AtomicIsize::new(0),
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
        self.endpoints.load(Ordering::Acquire).unsigned_abs()
    }

    /// The endpoint of a name: `md-` and its id, the name that was given to it, or the one that it is losing.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Endpoint>> {
        let named = id_of(name).and_then(|id| self.of(id)).or_else(|| self.by_name.find(name));
        named.or_else(|| self.of(*self.former.load().get(name)?))
    }

    /// The endpoint of a deployment.
    pub(crate) fn of(&self, id: DeploymentId) -> Option<Arc<Endpoint>> {
        self.by_id.find(&id)
    }

    /// Every endpoint once, in no order. Not atomic over the whole table.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        self.by_id.all()
    }

    /// The first names in order, at most `most`.
    pub(crate) fn first_names(&self, most: usize) -> Vec<String> {
        let mut ids: Vec<_> = self.all().map(|endpoint| endpoint.id).collect();
        if ids.len() > most {
            ids.select_nth_unstable_by_key(most, |id| names::digits(id.0.unsigned_abs()));
            ids.truncate(most);
        }
        let mut names: Vec<_> = ids.iter().map(ToString::to_string).collect();
        names.extend(self.sorted.first(most));
        if names.len() > most {
            names.select_nth_unstable(most);
            names.truncate(most);
        }
        names.sort_unstable();
        names
    }

    /// Known names that look like `name`, at most three, the nearest first. Bounded work, however many there are: of a
    /// large table only the names' neighbours in the alphabet are compared, and no ids.
    pub(crate) fn near_names(&self, name: &str) -> Vec<String> {
        let name = names::compared(name);
        let ids = (self.endpoints() <= names::ALL_NAMES).then(|| self.all().map(|endpoint| endpoint.id.to_string()));
        names::near(name, self.sorted.around(name).into_iter().chain(ids.into_iter().flatten()))
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
        let mut unnamed = Vec::new();
        let mut entering = Vec::new();
        for (id, change) in newest {
            let old = self.of(id);
            if let Some(route) = change.route {
                if let Some(old) = old.as_ref().filter(|old| old.route.name.as_deref() != route.name.as_deref()) {
                    unnamed.extend(Named::new(old));
                }
                entering.push(Arc::new(Endpoint::new(id, change.version, route, old.as_deref())));
            } else {
                gone.extend(old);
            }
        }
        let former = self.former_after(&gone, &entering);
        if let Some(former) = &former {
            // A name that an endpoint is losing leads to it all the while.
            let mut both = HashMap::clone(&self.former.load());
            both.extend(former.iter().map(|(name, id)| (name.clone(), *id)));
            self.former.store(Arc::new(both));
        }
        // All that leaves comes before all that enters: a name may pass from one endpoint to another.
        unnamed.extend(gone.iter().filter_map(Named::new));
        let named: Vec<_> = entering.iter().filter_map(Named::new).collect();
        self.by_name.edit(&unnamed, &named);
        self.sorted.edit(&unnamed, &named);
        let gone: Vec<_> = gone.into_iter().map(ById).collect();
        let entering: Vec<_> = entering.into_iter().map(ById).collect();
        self.endpoints.fetch_add(self.by_id.edit(&gone, &entering), Ordering::AcqRel);
        if let Some(former) = former {
            self.former.store(Arc::new(former));
        }
        self.version.store(version, Ordering::Release);
        self.holds.store(true, Ordering::Release);
    }

    /// The names that are being lost, once these endpoints have left and entered; `None` if they stay as they are.
    fn former_after(
        &self,
        gone: &[Arc<Endpoint>],
        entering: &[Arc<Endpoint>],
    ) -> Option<HashMap<Box<str>, DeploymentId>> {
        let known = self.former.load();
        let losing = |endpoint: &Arc<Endpoint>| Some((endpoint.route.former.clone()?, endpoint.id));
        if known.is_empty() && !entering.iter().any(|endpoint| endpoint.route.former.is_some()) {
            return None;
        }
        let changed: HashSet<_> = gone.iter().chain(entering).map(|endpoint| endpoint.id).collect();
        let mut former = HashMap::clone(&known);
        former.retain(|_, id| !changed.contains(id));
        former.extend(entering.iter().filter_map(losing));
        Some(former)
    }
}

/// The id that a name writes out as `md-26`.
fn id_of(name: &str) -> Option<DeploymentId> {
    let digits = name.strip_prefix("md-")?;
    if digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(DeploymentId)
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
