//! Decides the number of replicas of each revision: a pure function of the requested number and the traffic.

use std::collections::BTreeMap;

use api::{
    RevisionNumber,
    traffic::{Role, Share},
};

/// The number of replicas of each revision, where `replicas` of `wanted` are requested. The wanted revision is scaled,
/// and so is each revision that gets requests, because the wanted one may take long or never become ready. A pinned
/// revision without a share keeps one replica, unless the deployment is scaled to 0.
#[must_use]
pub fn counts(wanted: RevisionNumber, replicas: u32, traffic: &[Share]) -> BTreeMap<RevisionNumber, u32> {
    if replicas == 0 {
        return BTreeMap::new();
    }
    let of_share = |share: &Share| match (share.weight, share.role) {
        (0, Role::Pinned) => (share.revision, 1),
        (_, Role::Pinned | Role::Stable) => (share.revision, replicas),
    };
    let mut counts: BTreeMap<_, _> = traffic.iter().map(of_share).collect();
    counts.insert(wanted, replicas);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(revision: u32, weight: u32, role: Role) -> Share {
        Share { revision: RevisionNumber(revision), weight, role }
    }

    fn check(wanted: u32, replicas: u32, traffic: &[Share], expected: &[(u32, u32)]) {
        let expected = expected.iter().map(|(revision, count)| (RevisionNumber(*revision), *count)).collect();
        assert_eq!(counts(RevisionNumber(wanted), replicas, traffic), expected, "{traffic:?}");
    }

    #[test]
    fn each_revision_with_a_share_is_scaled_and_a_pinned_one_without_keeps_one_replica() {
        check(1, 3, &[], &[(1, 3)]);
        check(2, 3, &[share(1, 100, Role::Stable)], &[(1, 3), (2, 3)]);
        check(2, 3, &[share(2, 100, Role::Stable), share(1, 0, Role::Pinned)], &[(1, 1), (2, 3)]);
        check(2, 3, &[share(1, 100, Role::Pinned)], &[(1, 3), (2, 3)]);
        check(2, 3, &[share(2, 0, Role::Pinned)], &[(2, 3)]);
        check(2, 0, &[share(1, 0, Role::Pinned)], &[]);
    }
}
