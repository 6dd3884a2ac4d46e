//! Records requests that were lost because of a replica or the shutdown of the gateway.

use api::{
    ReplicaId, RevisionNumber,
    lost::{Loss, LostRequests, Suspect},
};
use http::HeaderValue;

use super::{gateway::Gateway, lane::Lane};
use crate::table::{
    endpoint::{Endpoint, Revision},
    replica::Replica,
};

fn lost(endpoint: &Endpoint, revision: &Revision, replica: &Replica, how: Loss, request: Option<&str>) -> LostRequests {
    LostRequests {
        key: format!("{:032x}", rand::random::<u128>()),
        deployment: endpoint.id,
        revision: RevisionNumber(revision.number),
        replica: ReplicaId(replica.id.to_string()),
        how,
        count: 1,
        requests: request.map(str::to_owned).into_iter().collect(),
        error: String::new(),
        suspect: None,
    }
}

/// The connection to a replica broke with a request. `before`: the replica whose connection broke with the same request
/// before.
pub(crate) fn broke_off(
    gateway: &Gateway,
    endpoint: &Endpoint,
    revision: &Revision,
    replica: &Replica,
    request: Option<&HeaderValue>,
    error: &str,
    before: Option<&str>,
) {
    // A replica that is told to stop was removed from the route before.
    let routed = gateway.table.of(endpoint.key).is_some_and(|newest| {
        newest.revisions.iter().any(|revision| revision.replicas.iter().any(|other| std::ptr::eq(&**other, replica)))
    });
    let how = if routed { Loss::BrokeOff } else { Loss::ReplicaEnded };
    let id = request.and_then(|id| id.to_str().ok());
    let suspect = id
        .zip(before)
        .map(|(request, before)| Suspect { request: request.to_owned(), before: ReplicaId(before.to_owned()) });
    let error = error.to_owned();
    gateway.lost.note(LostRequests { error, suspect, ..lost(endpoint, revision, replica, how, id) });
}

/// A request at a replica. If it is dropped after the drain time, the loss is recorded.
pub(crate) struct InHand<'a> {
    pub(crate) lane: &'a Lane,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) revision: &'a Revision,
    pub(crate) replica: &'a Replica,
    /// The request's id.
    pub(crate) id: Option<&'a HeaderValue>,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if self.lane.cuts() {
            let id = self.id.and_then(|id| id.to_str().ok());
            let lost = lost(self.endpoint, self.revision, self.replica, Loss::GatewayEnded, id);
            self.lane.gateway.lost.note(lost);
        }
    }
}
