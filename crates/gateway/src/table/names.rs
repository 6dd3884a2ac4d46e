//! All names in order: for the list of models, and for suggestions.
//!
//! **Invariant:** the event loop of a serving thread never waits for these: both are used only on threads that may
//! block.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::BTreeSet,
    hash::{Hash, Hasher},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{endpoint::Endpoint, shards::Key};

/// Beyond this number of names, a name is compared only with its alphabetical neighbours.
pub(super) const ALL_NAMES: usize = 2_000;
const NEIGHBOURS: usize = 256;
/// Maximum length of a name that is compared.
const COMPARED: usize = 64;

/// An endpoint that has a name, by that name.
#[derive(Clone, Debug)]
pub(super) struct Named(Arc<Endpoint>);

impl Named {
    /// `None` if it has only its id.
    pub(super) fn new(endpoint: &Arc<Endpoint>) -> Option<Self> {
        endpoint.route.name.is_some().then(|| Self(Arc::clone(endpoint)))
    }

    fn name(&self) -> &str {
        self.0.route.name.as_deref().unwrap_or_default()
    }
}

impl Key for Named {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        self.name()
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Named {}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

/// The endpoints that have a name, sorted by name.
#[derive(Debug, Default)]
pub(super) struct SortedNames(Mutex<BTreeSet<Named>>);

impl SortedNames {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Named>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`super::shards::Shards::edit`].
    pub(super) fn edit(&self, leaving: &[Named], entering: &[Named]) {
        let mut names = self.lock();
        for name in leaving {
            if names.get(name).is_some_and(|known| Arc::ptr_eq(&known.0, &name.0)) {
                names.remove(name);
            }
        }
        for name in entering {
            names.replace(name.clone());
        }
    }

    /// The first names, at most `most`.
    pub(super) fn first(&self, most: usize) -> Vec<String> {
        self.lock().iter().take(most).map(|named| named.name().to_owned()).collect()
    }

    /// The names that may be similar to `name`.
    pub(super) fn around(&self, name: &str) -> Vec<String> {
        let names = self.lock();
        if names.len() <= ALL_NAMES {
            return names.iter().map(|named| named.name().to_owned()).collect();
        }
        let before = names.range::<str, _>((Bound::Unbounded, Bound::Excluded(name))).rev().take(NEIGHBOURS);
        let after = names.range::<str, _>((Bound::Included(name), Bound::Unbounded)).take(NEIGHBOURS);
        before.chain(after).map(|named| named.name().to_owned()).collect()
    }
}

/// Sorts numbers as text.
pub(super) fn digits(number: u64) -> (u128, u32) {
    let count = number.checked_ilog10().unwrap_or(0);
    (u128::from(number) * 10_u128.pow(20 - count), count)
}

/// The part of a name that is compared with others.
pub(super) fn compared(name: &str) -> &str {
    let end = name.char_indices().map(|(at, _)| at).take_while(|at| *at <= COMPARED).last().unwrap_or(0);
    if name.len() <= COMPARED { name } else { &name[..end] }
}

/// The names of `known` that are similar to `name`, at most three, nearest first.
pub(super) fn near(name: &str, known: impl Iterator<Item = String>) -> Vec<String> {
    let mut near: Vec<_> = known
        .filter(|known| known.len().abs_diff(name.len()) <= 3)
        .map(|known| (strsim::damerau_levenshtein(&known, name), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).clamp(1, 3))
        .collect();
    near.sort();
    near.into_iter().take(3).map(|(_, known)| known).collect()
}
