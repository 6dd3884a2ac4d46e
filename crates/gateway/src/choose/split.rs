//! Chooses the revision of a request.
//!
//! Revisions get their weights along a low-discrepancy sequence (multiples of the golden ratio), so that even a hundred
//! requests are divided according to the weights.

use std::sync::{Arc, atomic::Ordering};

use api::words;
use http::StatusCode;

use crate::{
    table::endpoint::{Endpoint, Revision},
    wire::refusal::Refusal,
};

/// 2^32 over the golden ratio.
pub(super) const GOLDEN: u32 = 0x9E37_79B9;

/// The revision for a request, or why there is none.
pub(crate) fn choose<'e>(endpoint: &'e Endpoint, version: Option<&str>) -> Result<&'e Arc<Revision>, Refusal> {
    revision(endpoint, version).ok_or_else(|| none(endpoint, version))
}

fn none(endpoint: &Endpoint, version: Option<&str>) -> Refusal {
    let name = endpoint.name();
    match version {
        Some(version) if !endpoint.is_refused() && endpoint.versions().all(|known| known != version) => {
            let known: Vec<_> = endpoint.versions().take(5).collect();
            let words = match &*known {
                [] => format!("model `{name}` has no version `{version}`, and none that serves"),
                _ => words::no_version(&name, version, &known),
            };
            Refusal::new(StatusCode::NOT_FOUND, words)
        }
        Some(_) | None => Refusal::unavailable(endpoint.why_not(&name)),
    }
}

/// By its version if one is given, otherwise by weight. `None` if no such revision has a replica.
pub(crate) fn revision<'e>(endpoint: &'e Endpoint, version: Option<&str>) -> Option<&'e Arc<Revision>> {
    let serving = || endpoint.revisions.iter().filter(|revision| !revision.replicas.is_empty());
    if let Some(version) = version {
        return serving()
            .filter(|revision| &*revision.model_version == version)
            .max_by_key(|revision| (revision.weight, revision.number));
    }
    if let [only] = &*endpoint.revisions {
        return Some(only).filter(|only| !only.replicas.is_empty());
    }
    if endpoint.total_weight == 0 {
        // All revisions with a weight have no replica. An answer of the newest revision is better than none.
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
