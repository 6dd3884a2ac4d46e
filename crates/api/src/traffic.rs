//! How the requests of a deployment are shared out among its revisions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::RevisionNumber;

/// The whole of a deployment's requests.
const ALL: u32 = 100;

/// What part of a deployment's requests goes to one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Share {
    /// Which one.
    pub revision: RevisionNumber,
    /// Its part of the requests that name no version, in relation to the other weights. With 0 it is reached at
    /// `/versions/{v}` only.
    #[schema(example = 100)]
    pub weight: u32,
    /// Why it has this share.
    pub role: Role,
}

/// Why a revision has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It serves, until a newer one takes its place.
    Stable,
    /// It stays, with at least one replica, whatever its weight.
    Pinned,
}

/// The share with the most weight: of the revision that is said to serve. `None` if none has any.
#[must_use]
pub fn main_share(traffic: &[Share]) -> Option<Share> {
    traffic.iter().rev().copied().filter(|share| share.weight > 0).max_by_key(|share| share.weight)
}

/// Gives a revision all requests, where no other share has any weight.
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
