//! Which revision a request goes to, and which of its replicas.
//!
//! Revisions share by weight along a sequence of low discrepancy (multiples of the golden ratio), so that
//! already a hundred requests divide as the weights say. Among replicas the one with the fewest requests
//! outstanding wins: over all of them where they are few, else over two taken at random ("power of two choices",
//! Mitzenmacher 2001), which costs the same however many there are.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    replica::Replica,
    table::{Endpoint, Revision},
};

/// Up to here all replicas are compared.
const FEW: usize = 8;

/// 2^32 over the golden ratio.
const GOLDEN: u32 = 0x9E37_79B9;

/// The revision that a request goes to: by its version where one is named, else by weight. `None` if no such
/// revision has a replica.
pub(crate) fn revision<'e>(endpoint: &'e Endpoint, version: Option<&str>) -> Option<&'e Arc<Revision>> {
    let serving = || endpoint.revisions.iter().filter(|revision| !revision.replicas.is_empty());
    if let Some(version) = version {
        return serving()
            .filter(|revision| revision.model_version == version)
            .max_by_key(|revision| (revision.weight, revision.number));
    }
    if let [only] = &*endpoint.revisions {
        return Some(only).filter(|only| !only.replicas.is_empty());
    }
    if endpoint.total_weight == 0 {
        // All of the weight is on revisions without a replica. An answer of the newest is better than none.
        return serving().max_by_key(|revision| revision.number);
    }
    let turn = endpoint.live.turn.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN);
    let mut point = (u64::from(turn) * endpoint.total_weight) >> 32;
    serving().find(|revision| {
        let weight = u64::from(revision.weight);
        let hit = point < weight;
        point = point.saturating_sub(weight);
        hit
    })
}

/// The replica that a request goes to, not one of `tried`. Ejected ones are chosen only when no other is left.
pub(crate) fn choose<'r>(
    revision: &'r Revision,
    tried: &[Arc<Replica>],
    now_ms: impl Fn() -> u64,
) -> Option<&'r Arc<Replica>> {
    let replicas = &revision.replicas;
    if let ([only], []) = (&**replicas, tried) {
        return Some(only);
    }
    let fresh = |replica: &Arc<Replica>| !tried.iter().any(|tried| Arc::ptr_eq(tried, replica));
    let turn = revision.live.turn.fetch_add(1, Ordering::Relaxed) as usize;
    if replicas.len() > FEW {
        let at = |salt: usize| &replicas[(turn.wrapping_mul(GOLDEN as usize) >> salt) % replicas.len()];
        let (one, other) = (at(3), at(17));
        let good = |replica: &Arc<Replica>| fresh(replica) && !replica.is_ejected(&now_ms);
        match (good(one), good(other)) {
            (true, true) => return Some(if outstanding(one) <= outstanding(other) { one } else { other }),
            (true, false) => return Some(one),
            (false, true) => return Some(other),
            (false, false) => {}
        }
    }
    // Beginning at another one each time makes equals take turns.
    let around = || (0..replicas.len()).map(|i| &replicas[(turn.wrapping_add(i)) % replicas.len()]);
    let fewest = |among: &mut dyn Iterator<Item = &'r Arc<Replica>>| among.min_by_key(|replica| outstanding(replica));
    fewest(&mut around().filter(|replica| fresh(replica) && !replica.is_ejected(&now_ms)))
        .or_else(|| fewest(&mut around().filter(|replica| fresh(replica))))
}

fn outstanding(replica: &Replica) -> u32 {
    replica.outstanding.load(Ordering::Relaxed)
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
