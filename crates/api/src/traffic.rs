//! How the requests of a deployment are distributed over its revisions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::RevisionNumber;

/// The sum of all weights.
const ALL: u32 = 100;

/// The share of one revision of the requests of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// The number of the revision.
    pub revision: RevisionNumber,
    /// Its weight for requests that name no version, relative to the other weights. With weight 0 it only gets requests
    /// for `/versions/{v}`.
    #[schema(example = 100)]
    pub weight: u32,
    /// Why it has this share.
    pub role: Role,
}

/// The role of a revision in the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It serves until a newer revision replaces it.
    Stable,
    /// It stays, with at least one replica, whatever its weight is.
    Pinned,
}

/// The share with the highest weight; its revision counts as the one that serves. `None` if all weights are 0.
#[must_use]
pub fn main_share(traffic: &[Share]) -> Option<Share> {
    traffic.iter().rev().copied().filter(|share| share.weight > 0).max_by_key(|share| share.weight)
}

/// Gives a revision all requests, if no other share has a weight.
pub fn give_all(traffic: &mut Vec<Share>, revision: Option<RevisionNumber>) {
    let Some(revision) = revision else { return };
    match traffic.iter_mut().find(|share| share.revision == revision) {
        Some(share) => share.weight = ALL,
        None => traffic.insert(0, all_to(revision)),
    }
}

/// The share of a revision that serves alone.
#[must_use]
pub fn all_to(revision: RevisionNumber) -> Share {
    Share { revision, weight: ALL, role: Role::Stable }
}
