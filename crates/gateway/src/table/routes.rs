//! The route table: the current endpoint of a name.
//!
//! The control plane sends endpoints and targets of deployments separately. An [`Endpoint`] contains both, so that a
//! request needs one lookup. Targets without an endpoint, or with a refused one, are kept next to the table.
//!
//! Endpoints are found by id and by name in [`Shards`], so that a change of a table with 100,000 endpoints costs no
//! more than of a small one. Live data (outstanding requests, ejections, counters) belongs to
//! [`Revision`](super::endpoint::Revision) and [`Replica`](super::replica::Replica); a changed endpoint takes it over
//! from its previous state.
//!
//! **Invariant:** only [`Table::apply`] changes the table, and one task at a time calls it.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicIsize, Ordering},
    },
};

use api::{
    DeploymentId, EndpointId,
    route::{self, Change, Entry, Policy, Targets},
};
use arc_swap::ArcSwap;

use super::{
    endpoint::{self, Endpoint},
    names::{self, Named, SortedNames},
    shards::{Key, Shards},
};

/// How many changes are applied at once, so that loading a large table does not need a second copy of it.
const AT_ONCE: usize = 16_384;

/// An endpoint by its id.
#[derive(Clone, Debug)]
struct ById(Arc<Endpoint>);

impl Key for ById {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Borrow<EndpointId> for ById {
    fn borrow(&self) -> &EndpointId {
        &self.0.key
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ById {}

/// Data that no request uses.
#[derive(Debug, Default)]
struct Aside {
    /// Targets without an endpoint, or with refused ones only.
    waiting: HashMap<DeploymentId, Targets>,
    /// Endpoints whose number differs from that of their deployment, by deployment.
    elsewhere: BTreeMap<DeploymentId, HashSet<EndpointId>>,
}

impl Aside {
    /// The endpoints that may use a deployment.
    fn endpoints_of(&self, id: DeploymentId) -> impl Iterator<Item = EndpointId> {
        [EndpointId::from(id)].into_iter().chain(self.elsewhere.get(&id).into_iter().flatten().copied())
    }

    fn note(&mut self, endpoint: &Endpoint) {
        if endpoint.key != EndpointId::from(endpoint.id) {
            self.elsewhere.entry(endpoint.id).or_default().insert(endpoint.key);
        }
    }

    fn forget(&mut self, endpoint: &Endpoint) {
        if let Some(keys) = self.elsewhere.get_mut(&endpoint.id) {
            keys.remove(&endpoint.key);
            if keys.is_empty() {
                self.elsewhere.remove(&endpoint.id);
            }
        }
    }
}

/// The new values of some entries; `None` for a removed entry.
#[derive(Default)]
struct News {
    policies: HashMap<EndpointId, Option<Policy>>,
    targets: HashMap<DeploymentId, Option<Targets>>,
}

impl News {
    fn of(entries: impl Iterator<Item = Entry>) -> Self {
        let mut news = Self::default();
        for entry in entries {
            match entry {
                Entry::Endpoint { key, value } => drop(news.policies.insert(key, value)),
                Entry::Targets { key, value } => drop(news.targets.insert(key, value)),
                // Unknown kinds are ignored: what must not be ignored is listed in an endpoint's requirements.
                Entry::Unknown => {}
            }
        }
        news
    }
}

/// All endpoints by both of their names.
#[derive(Debug)]
pub(crate) struct Table {
    by_id: Shards<ById>,
    by_name: Shards<Named>,
    /// Old names of endpoints that are being renamed, which their replicas still answer to.
    former: ArcSwap<HashMap<Box<str>, EndpointId>>,
    /// Names in order, for lists and suggestions.
    sorted: SortedNames,
    aside: Mutex<Aside>,
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
            aside: Mutex::default(),
            holds: AtomicBool::new(false),
            version: AtomicI64::new(0),
            endpoints: AtomicIsize::new(0),
        }
    }

    /// Whether a table was ever loaded, including an empty one.
    pub(crate) fn holds(&self) -> bool {
        self.holds.load(Ordering::Acquire)
    }

    /// Its version.
    pub(crate) fn version(&self) -> i64 {
        self.version.load(Ordering::Acquire)
    }

    /// Its number of endpoints.
    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints.load(Ordering::Acquire).unsigned_abs()
    }

    /// The endpoint of a name: `md-` and its id, its name, or its old name during a rename.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Endpoint>> {
        let named = id_of(name).and_then(|id| self.of(id)).or_else(|| self.by_name.find(name));
        named.or_else(|| self.of(*self.former.load().get(name)?))
    }

    /// The endpoint with this key.
    pub(crate) fn of(&self, key: EndpointId) -> Option<Arc<Endpoint>> {
        self.by_id.find(&key)
    }

    /// Every endpoint once, in no order. Not atomic over the whole table.
    pub(crate) fn all(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        self.by_id.all()
    }

    /// The first names in order, at most `most`.
    pub(crate) fn first_names(&self, most: usize) -> Vec<String> {
        let mut ids: Vec<_> = self.all().map(|endpoint| endpoint.key).collect();
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

    /// Known names that are similar to `name`, at most three, nearest first. The work is bounded: in a large table,
    /// only the alphabetical neighbours are compared, and no ids.
    pub(crate) fn near_names(&self, name: &str) -> Vec<String> {
        let name = names::compared(name);
        let ids = (self.endpoints() <= names::ALL_NAMES).then(|| self.all().map(|endpoint| endpoint.key.to_string()));
        names::near(name, self.sorted.around(name).into_iter().chain(ids.into_iter().flatten()))
    }

    fn aside(&self) -> MutexGuard<'_, Aside> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Known targets that are not served.
    pub(crate) fn waiting(&self) -> Vec<(DeploymentId, Targets)> {
        self.aside().waiting.iter().map(|(id, targets)| (*id, targets.clone())).collect()
    }

    /// Applies a batch of changes, of which the last one for an entry counts, and sets the version to `version`. With
    /// `reset`, every entry that is not in the batch is removed.
    pub(crate) fn apply(&self, changes: Vec<Change>, version: i64, reset: bool) {
        let mut aside = self.aside();
        let mut named: (HashSet<EndpointId>, HashSet<DeploymentId>) = Default::default();
        let mut entries = changes.into_iter().map(|change| change.entry);
        while entries.len() > 0 {
            let some = News::of(entries.by_ref().take(AT_ONCE));
            if reset {
                named.0.extend(some.policies.keys());
                named.1.extend(some.targets.keys());
            }
            self.bring_in(&mut aside, some);
        }
        if reset {
            let (mut gone, waiting) = (News::default(), aside.waiting.keys().copied().collect::<Vec<_>>());
            let endpoints: Vec<_> = self.all().collect();
            let unnamed = endpoints.iter().map(|old| old.key).filter(|key| !named.0.contains(key));
            gone.policies.extend(unnamed.map(|key| (key, None)));
            let deployments = endpoints.iter().map(|old| old.id).chain(waiting).filter(|id| !named.1.contains(id));
            gone.targets.extend(deployments.map(|id| (id, None)));
            self.bring_in(&mut aside, gone);
        }
        self.version.store(version, Ordering::Release);
        self.holds.store(true, Ordering::Release);
    }

    /// Fills an empty table part by part; it stands at `version` once everything is there. After an error it is empty.
    pub(crate) fn fill<E>(&self, mut entries: impl Iterator<Item = Result<Entry, E>>, version: i64) -> Result<(), E> {
        loop {
            let part: Result<Vec<_>, E> = entries.by_ref().take(AT_ONCE).collect();
            match part {
                Ok(part) if part.is_empty() => break,
                Ok(part) => self.bring_in(&mut self.aside(), News::of(part.into_iter())),
                Err(error) => {
                    self.apply(Vec::new(), 0, true);
                    self.holds.store(false, Ordering::Release);
                    return Err(error);
                }
            }
        }
        self.version.store(version, Ordering::Release);
        self.holds.store(true, Ordering::Release);
        Ok(())
    }

    /// Brings in what is new of some entries.
    fn bring_in(&self, aside: &mut Aside, news: News) {
        let News { mut policies, mut targets } = news;
        let touched: HashSet<EndpointId> =
            targets.keys().flat_map(|id| aside.endpoints_of(*id)).chain(policies.keys().copied()).collect();
        let mut next = Vec::with_capacity(touched.len());
        // How many of the changed endpoints use a deployment.
        let mut uses: HashMap<DeploymentId, usize> = HashMap::with_capacity(touched.len());
        for key in &touched {
            let old = self.of(*key);
            let policy = policies.remove(key).unwrap_or_else(|| old.as_ref().map(|old| old.to_policy()));
            let lacking = policy.as_ref().map(endpoint::lacking).unwrap_or_default();
            let refused = !lacking.is_empty();
            for id in old.iter().map(|old| old.id).chain(policy.as_ref().map(|policy| policy.deployment)) {
                targets.entry(id).or_insert_with(|| self.present_targets(aside, id));
            }
            if let Some(policy) = policy.as_ref().filter(|_| !refused) {
                *uses.entry(policy.deployment).or_default() += 1;
            }
            next.push((*key, old, policy, refused));
        }
        drop(policies);
        let (mut gone, mut unnamed, mut entering, mut refusals) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (key, old, policy, refused) in next {
            if let Some(old) = &old {
                aside.forget(old);
            }
            let Some(policy) = policy else {
                gone.extend(old);
                continue;
            };
            if let Some(old) = old.as_ref().filter(|old| old.route.name.as_deref() != policy.name.as_deref()) {
                unnamed.extend(Named::new(old));
            }
            if refused && !old.as_ref().is_some_and(|old| old.is_refused()) {
                refusals.push((key, route::refusal(&endpoint::lacking(&policy))));
            }
            let id = policy.deployment;
            let mut its_targets = None;
            if let Some(uses) = uses.get_mut(&id).filter(|_| !refused) {
                *uses -= 1;
                its_targets = if *uses == 0 { targets.remove(&id) } else { targets.get(&id).cloned() }.flatten();
                aside.waiting.remove(&id);
            }
            let endpoint = Arc::new(Endpoint::new(key, policy, its_targets, old.as_deref()));
            aside.note(&endpoint);
            entering.push(endpoint);
        }
        for (id, left) in targets {
            let served = aside.endpoints_of(id).any(|key| !touched.contains(&key) && self.leads_to(key, id));
            match left.filter(|_| !served) {
                Some(left) => drop(aside.waiting.insert(id, left)),
                None => drop(aside.waiting.remove(&id)),
            }
        }
        tell_refusals(&refusals);
        let former = self.former_after(&gone, &entering);
        if let Some(former) = &former {
            // During a rename, the old name finds the endpoint all the time.
            let mut both = HashMap::clone(&self.former.load());
            both.extend(former.iter().map(|(name, id)| (name.clone(), *id)));
            self.former.store(Arc::new(both));
        }
        // First all removals, then all insertions: a name may pass from one endpoint to another.
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
    }

    fn leads_to(&self, key: EndpointId, id: DeploymentId) -> bool {
        self.of(key).is_some_and(|endpoint| endpoint.id == id && !endpoint.is_refused())
    }

    /// The targets of a deployment before a change.
    fn present_targets(&self, aside: &Aside, id: DeploymentId) -> Option<Targets> {
        let mut serving = aside.endpoints_of(id).filter(|key| self.leads_to(*key, id));
        let endpoint = serving.next().and_then(|key| self.of(key));
        endpoint.map(|endpoint| endpoint.to_targets()).or_else(|| aside.waiting.get(&id).cloned())
    }

    /// The old names of renames, after these endpoints were removed and inserted; `None` if they do not change.
    fn former_after(
        &self,
        gone: &[Arc<Endpoint>],
        entering: &[Arc<Endpoint>],
    ) -> Option<HashMap<Box<str>, EndpointId>> {
        let known = self.former.load();
        let losing = |endpoint: &Arc<Endpoint>| Some((endpoint.route.former()?.into(), endpoint.key));
        if known.is_empty() && !entering.iter().any(|endpoint| endpoint.route.former().is_some()) {
            return None;
        }
        let changed: HashSet<_> = gone.iter().chain(entering).map(|endpoint| endpoint.key).collect();
        let mut former = HashMap::clone(&known);
        former.retain(|_, id| !changed.contains(id));
        former.extend(entering.iter().filter_map(losing));
        Some(former)
    }
}

/// Logs which endpoints are not served because of a missing capability.
fn tell_refusals(refusals: &[(EndpointId, String)]) {
    if let [(key, why), others @ ..] = refusals {
        let others = if others.is_empty() { String::new() } else { format!(", nor {} others", others.len()) };
        tracing::warn!("this gateway does not serve {key}{others}: {why}");
    }
}

/// The id in a name like `md-26`.
fn id_of(name: &str) -> Option<EndpointId> {
    let digits = name.strip_prefix("md-")?;
    if digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(EndpointId)
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
