//! Chooses the replica of a request.
//!
//! The replica with the fewest outstanding requests is chosen: among all of them if there are few, otherwise among two
//! random ones ("power of two choices", Mitzenmacher 2001), which costs the same for any number of replicas.

use std::sync::{Arc, atomic::Ordering};

use super::split::GOLDEN;
use crate::table::{endpoint::Revision, replica::Replica};

/// Up to this number all replicas are compared.
const FEW: usize = 8;

/// The replica for a request, not one of `tried`. Ejected ones are chosen only if no other is left, hung ones never.
pub(crate) fn choose<'r>(
    revision: &'r Revision,
    tried: &[Arc<Replica>],
    now_ms: impl Fn() -> u64,
) -> Option<&'r Arc<Replica>> {
    let replicas = &revision.replicas;
    if let ([only], []) = (&**replicas, tried) {
        return Some(only).filter(|only| !only.is_hung());
    }
    let fresh = |replica: &Arc<Replica>| !replica.is_hung() && !tried.iter().any(|tried| Arc::ptr_eq(tried, replica));
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
    // A different start each time makes equal replicas take turns.
    let around = || (0..replicas.len()).map(|i| &replicas[(turn.wrapping_add(i)) % replicas.len()]);
    let fewest = |among: &mut dyn Iterator<Item = &'r Arc<Replica>>| among.min_by_key(|replica| outstanding(replica));
    fewest(&mut around().filter(|replica| fresh(replica) && !replica.is_ejected(&now_ms)))
        .or_else(|| fewest(&mut around().filter(|replica| fresh(replica))))
}

fn outstanding(replica: &Replica) -> u32 {
    replica.outstanding.load(Ordering::Relaxed)
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
