//! All names in order: for the list of models, and for those who misspell one.
//!
//! **Invariant:** a serving thread's event loop never waits for these: both questions are asked from threads that may
//! block.

use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Beyond this many names only a name's neighbours in the alphabet are compared with it.
const ALL_NAMES: usize = 2_000;
const NEIGHBOURS: usize = 256;
/// What of a name is compared.
const COMPARED: usize = 64;

/// All names in order.
#[derive(Debug, Default)]
pub(crate) struct SortedNames(Mutex<BTreeSet<Arc<str>>>);

impl SortedNames {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first names, at most `most`.
    pub(crate) fn first(&self, most: usize) -> Vec<Arc<str>> {
        self.lock().iter().take(most).cloned().collect()
    }

    /// Known names that look like `name`, at most three, the nearest first. Bounded work, however many there are.
    pub(crate) fn near(&self, name: &str) -> Vec<Arc<str>> {
        let end = name.char_indices().map(|(at, _)| at).take_while(|at| *at <= COMPARED).last().unwrap_or(0);
        let name = if name.len() <= COMPARED { name } else { &name[..end] };
        let mut near: Vec<_> = self
            .around(name)
            .into_iter()
            .filter(|known| known.len().abs_diff(name.len()) <= 3)
            .map(|known| (strsim::damerau_levenshtein(&known, name), known))
            .filter(|(distance, known)| *distance <= (known.len() / 3).clamp(1, 3))
            .collect();
        near.sort();
        near.into_iter().take(3).map(|(_, known)| known).collect()
    }

    fn around(&self, name: &str) -> Vec<Arc<str>> {
        let names = self.lock();
        if names.len() <= ALL_NAMES {
            return names.iter().cloned().collect();
        }
        let before = names.range::<str, _>((Bound::Unbounded, Bound::Excluded(name))).rev().take(NEIGHBOURS);
        let after = names.range::<str, _>((Bound::Included(name), Bound::Unbounded)).take(NEIGHBOURS);
        before.chain(after).cloned().collect()
    }
}
