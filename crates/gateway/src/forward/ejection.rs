//! Ejects failed replicas, and records that for the control plane.

use api::{
    ReplicaId, RevisionNumber,
    ejected::{Cause, Ejected},
};

use super::gateway::Gateway;
use crate::table::replica::Replica;

/// The replica could not be reached, or its connection broke.
pub(crate) fn eject(gateway: &Gateway, replica: &Replica, cause: Cause, error: &str) {
    if let Some(pause_ms) = replica.eject(gateway.now_ms()) {
        note(gateway, replica, cause, error, Some(pause_ms));
    }
}

/// The replica failed a request. Several in a row eject it. `error` is evaluated only then.
pub(crate) fn failed(gateway: &Gateway, replica: &Replica, error: impl FnOnce() -> String) {
    if let Some(pause_ms) = replica.answered_badly(gateway.now_ms()) {
        note(gateway, replica, Cause::Failing, &error(), Some(pause_ms));
    }
}

/// The replica did not answer a probe.
pub(crate) fn hangs(gateway: &Gateway, replica: &Replica, error: &str) {
    if replica.hangs() {
        note(gateway, replica, Cause::Hung, error, None);
    }
}

fn note(gateway: &Gateway, replica: &Replica, cause: Cause, error: &str, pause_ms: Option<u64>) {
    let found = gateway.table.all().find_map(|endpoint| {
        let has = |other: &std::sync::Arc<Replica>| std::ptr::eq(&**other, replica);
        let revision = endpoint.revisions.iter().find(|revision| revision.replicas.iter().any(has))?.number;
        Some((endpoint.id, RevisionNumber(revision)))
    });
    // A replica that is told to stop was removed from the route before. Its end is no failure.
    let Some((deployment, revision)) = found else { return };
    gateway.ejected.note(Ejected {
        key: format!("{:032x}", rand::random::<u128>()),
        deployment,
        revision,
        replica: ReplicaId(replica.id.clone()),
        cause,
        error: error.to_owned(),
        count: 1,
        pause_ms,
    });
}
