//! Notes what a replica, or the end of the gateway, did to requests.

use std::sync::atomic::Ordering;

use api::{
    ReplicaId, RevisionNumber,
    lost::{Loss, LostRequests, Suspect},
};
use http::HeaderValue;

use super::gateway::Gateway;
use crate::table::{
    endpoint::{Endpoint, Revision},
    replica::Replica,
};

fn lost(endpoint: &Endpoint, revision: &Revision, replica: &Replica, how: Loss, count: u64) -> LostRequests {
    LostRequests {
        key: format!("{:032x}", rand::random::<u128>()),
        deployment: endpoint.id,
        revision: RevisionNumber(revision.number),
        replica: ReplicaId(replica.id.to_string()),
        how,
        count,
        requests: Vec::new(),
        error: String::new(),
        suspect: None,
    }
}

/// A replica broke off with a request in its hands. `before`: the replica that had broken off with the same request.
pub(crate) fn broke_off(
    gateway: &Gateway,
    endpoint: &Endpoint,
    revision: &Revision,
    replica: &Replica,
    request: Option<&HeaderValue>,
    error: &str,
    before: Option<&str>,
) {
    // A replica that is told to end has left the route before.
    let routed = gateway.table.find(&endpoint.id.to_string()).is_some_and(|newest| {
        newest.revisions.iter().any(|revision| revision.replicas.iter().any(|other| std::ptr::eq(&**other, replica)))
    });
    let how = if routed { Loss::BrokeOff } else { Loss::ReplicaEnded };
    let id = request.and_then(|id| id.to_str().ok()).map(str::to_owned);
    let suspect =
        id.clone().zip(before).map(|(request, before)| Suspect { request, before: ReplicaId(before.to_owned()) });
    let requests = id.into_iter().collect();
    gateway.lost.note(LostRequests {
        requests,
        error: error.to_owned(),
        suspect,
        ..lost(endpoint, revision, replica, how, 1)
    });
}

/// The gateway ends, and waits for no answers any more.
pub(crate) fn cut(gateway: &Gateway) {
    if gateway.cut.swap(true, Ordering::AcqRel) {
        return;
    }
    for endpoint in gateway.table.all() {
        for (revision, replica) in
            endpoint.revisions.iter().flat_map(|it| it.replicas.iter().map(move |replica| (it, replica)))
        {
            let count = u64::from(replica.outstanding.load(Ordering::Relaxed));
            if count > 0 {
                gateway.lost.note(lost(&endpoint, revision, replica, Loss::GatewayEnded, count));
            }
        }
    }
}
