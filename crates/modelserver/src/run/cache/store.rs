//! Cached answers with a memory limit; the least recently used ones are removed first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use inference::{Data, Json, Tensor};

use super::Key;

/// The overhead of an answer: its entries in both maps, at their lowest load.
const ENTRY: usize = 256;

/// An answer, shared by the cache and its readers.
pub(super) type Kept = Arc<Vec<Tensor>>;

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    entries: HashMap<Key, Entry>,
    /// The keys by last use.
    uses: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    answer: Kept,
    used: u64,
    size: usize,
}

impl Store {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), uses: BTreeMap::new(), clock: 0, bytes: 0, limit }
    }

    /// The answer, which counts as used now.
    pub(super) fn get(&mut self, key: &Key) -> Option<Kept> {
        let entry = self.entries.get_mut(key)?;
        self.clock += 1;
        self.uses.remove(&entry.used);
        self.uses.insert(self.clock, *key);
        entry.used = self.clock;
        Some(Arc::clone(&entry.answer))
    }

    /// Stores an answer, and removes others if necessary. An answer larger than the limit is not stored.
    pub(super) fn put(&mut self, key: Key, answer: Kept) {
        let size = size(&answer);
        self.remove(&key);
        if size > self.limit {
            return;
        }
        while self.bytes + size > self.limit {
            let Some((_, oldest)) = self.uses.first_key_value() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
        }
        self.clock += 1;
        self.bytes += size;
        self.uses.insert(self.clock, key);
        self.entries.insert(key, Entry { answer, used: self.clock, size });
    }

    /// Whether an answer could be stored at all.
    pub(super) fn has_room_for(&self, answer: &[Tensor]) -> bool {
        size(answer) <= self.limit
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.uses.remove(&entry.used);
            self.bytes -= entry.size;
        }
    }
}

/// The memory of an answer whose vectors have no spare capacity.
fn size(answer: &[Tensor]) -> usize {
    let tensor = |tensor: &Tensor| {
        let data = if let Data::Bytes(elements) | Data::Json(Json { texts: elements, .. }) = &tensor.data {
            elements.iter().map(|element| size_of::<Bytes>() + element.len()).sum()
        } else {
            tensor.data.binary_len()
        };
        size_of::<Tensor>() + tensor.name.len() + size_of_val(tensor.shape.as_slice()) + data
    };
    ENTRY + answer.iter().map(tensor).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(length: usize, mark: u8) -> Kept {
        Arc::new(vec![Tensor { name: "y".into(), shape: vec![1], data: Data::Uint8(vec![mark; length]) }])
    }

    proptest! {
        #[test]
        fn it_holds_the_latest_used_within_its_bound(
            limit in 0usize..4_000,
            steps in prop::collection::vec((0u8..12, prop::option::of((0usize..1_500, any::<u8>()))), 1..200),
        ) {
            let mut store = Store::new(limit);
            // What it should hold, the latest used last.
            let mut model: Vec<(u8, Kept)> = Vec::new();
            for (number, put) in steps {
                let key = Key::numbered(number);
                let place = model.iter().position(|(known, _)| *known == number);
                let known = place.map(|place| model.remove(place));
                match put {
                    Some((length, mark)) => {
                        let answer = answer(length, mark);
                        store.put(key, Arc::clone(&answer));
                        if size(&answer) <= limit {
                            model.push((number, answer));
                        }
                        while model.iter().map(|(_, kept)| size(kept)).sum::<usize>() > limit {
                            model.remove(0);
                        }
                    }
                    None => {
                        prop_assert_eq!(store.get(&key), known.as_ref().map(|(_, kept)| Arc::clone(kept)));
                        model.extend(known);
                    }
                }
                prop_assert_eq!(store.bytes, model.iter().map(|(_, kept)| size(kept)).sum::<usize>());
                prop_assert!(store.bytes <= limit);
                prop_assert_eq!(store.entries.len(), model.len());
                prop_assert_eq!(store.uses.len(), model.len());
            }
        }
    }
}
