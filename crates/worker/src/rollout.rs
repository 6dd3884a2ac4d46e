//! Decides the share of requests of each revision: a pure function of the previous traffic and the ready replicas.
//!
//! All requests go to the wanted revision once all of its replicas are ready, and until then to the previous one. A
//! pinned revision keeps its share of 0 next to that, so that clients can address it, until it is unpinned.
//!
//! The traffic itself is the state: it is written with each step, in the status of the deployment and in its own
//! column.

use std::collections::BTreeMap;

use api::{
    RevisionNumber,
    traffic::{Role, Share, give_all, main_share},
};
use backend::Replica;
use store::DeploymentRecord;

/// The next distribution of requests. If nothing is ready, the revision that served last will serve again.
#[must_use]
pub fn next(record: &DeploymentRecord, observed: &[Replica]) -> Vec<Share> {
    let before = &record.status.traffic;
    let want = record.wanted_replicas();
    let mut ready: BTreeMap<RevisionNumber, u32> = BTreeMap::new();
    for replica in observed.iter().filter(|replica| replica.is_ready()) {
        *ready.entry(replica.revision).or_default() += 1;
    }
    let is_ready = |revision: &RevisionNumber| ready.contains_key(revision);
    let newest = record.revision;
    let last = main_share(before).map(|share| share.revision);
    let main = if want == 0 {
        None
    } else if ready.get(&newest).is_some_and(|ready| *ready >= want) {
        Some(newest)
    } else {
        last.filter(is_ready)
            .or_else(|| Some(newest).filter(is_ready))
            .or_else(|| ready.keys().next_back().copied())
            .or(last)
    };
    let pinned = before.iter().filter(|share| share.role == Role::Pinned).map(|share| share.revision);
    let mut traffic = pinned.map(|revision| Share { revision, weight: 0, role: Role::Pinned }).collect();
    give_all(&mut traffic, main);
    traffic
}
