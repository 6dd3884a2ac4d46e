//! Endpoints by one of their names, in many small sets, each behind an atomic pointer.
//!
//! A reader follows one pointer and never waits. A change copies the few sets that it affects. An endpoint contains its
//! names itself, so an entry is one pointer.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::endpoint::Endpoint;

const SHARDS: usize = 1024;

type Hashes = BuildHasherDefault<DefaultHasher>;

/// An endpoint with one of its names as the key.
pub(super) trait Key: Hash + Eq + Clone {
    fn endpoint(&self) -> &Arc<Endpoint>;
}

/// Endpoints by one of their names.
#[derive(Debug)]
pub(super) struct Shards<K>(Box<[ArcSwap<HashSet<K, Hashes>>]>);

impl<K: Key> Shards<K> {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| ArcSwap::default()).collect())
    }

    /// The endpoint with this name.
    pub(super) fn find<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<Arc<Endpoint>>
    where
        K: Borrow<Q>,
    {
        self.0[shard_of(name)].load().get(name).map(|key| Arc::clone(key.endpoint()))
    }

    /// All of them, in no order. Not atomic over all shards.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        self.0.iter().flat_map(|shard| {
            let shard = shard.load();
            shard.iter().map(|key| Arc::clone(key.endpoint())).collect::<Vec<_>>()
        })
    }

    /// Removes endpoints, unless another one has their name now, and then inserts the others. Returns the change of the
    /// number of entries.
    pub(super) fn edit(&self, leaving: &[K], entering: &[K]) -> isize {
        let mut edits: HashMap<usize, [Vec<&K>; 2]> = HashMap::new();
        for (which, keys) in [leaving, entering].into_iter().enumerate() {
            for key in keys {
                edits.entry(shard_of(key)).or_default()[which].push(key);
            }
        }
        let mut more = 0;
        for (shard, [leaving, entering]) in edits {
            let mut set = HashSet::clone(&self.0[shard].load());
            let before = set.len();
            for key in leaving {
                if set.get(key).is_some_and(|known| Arc::ptr_eq(known.endpoint(), key.endpoint())) {
                    set.remove(key);
                }
            }
            for key in entering {
                set.replace(key.clone());
            }
            more += set.len().cast_signed() - before.cast_signed();
            self.0[shard].store(Arc::new(set));
        }
        more
    }
}

fn shard_of<Q: Hash + ?Sized>(name: &Q) -> usize {
    usize::try_from(Hashes::default().hash_one(name) % SHARDS as u64).unwrap_or(0)
}
