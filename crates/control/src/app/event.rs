//! The decision log.

use api::{
    DeploymentId, Event,
    event::NewEvent,
    lost::{Loss, LostRequests, MOST_IDS},
};
use serde_json::json;
use store::{Order, Page};

use super::App;
use crate::error::Error;

impl App {
    /// Events of one deployment or of all. A deployment that is gone has left its events; one that never
    /// was is refused.
    pub(crate) async fn event_list(
        &self,
        deployment: Option<DeploymentId>,
        order: Order,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<Event>, Error> {
        let page = self.store.event_list(deployment, order, after, limit).await?;
        if let (Some(id), None, true) = (deployment, after, page.items.is_empty()) {
            self.store.deployment_get(id).await?;
        }
        Ok(page)
    }

    /// Makes each an event of its deployment. One that was told before makes none.
    pub(crate) async fn requests_lost(&self, lost: &[LostRequests]) -> Result<(), Error> {
        for lost in lost {
            let event = NewEvent {
                revision: Some(lost.revision),
                actor: "gateway",
                kind: match lost.how {
                    Loss::BrokeOff => "requests_lost",
                    Loss::ReplicaEnded | Loss::GatewayEnded => "drain_cut",
                },
                message: message(lost),
                evidence: json!({
                    "replica": lost.replica, "requests": lost.count, "request_ids": ids(lost), "error": lost.error,
                    "suspect": lost.suspect,
                }),
            };
            self.store.event_once(lost.deployment, &lost.key, event, self.now()).await?;
        }
        Ok(())
    }
}

fn ids(lost: &LostRequests) -> &[String] {
    &lost.requests[..lost.requests.len().min(MOST_IDS)]
}

fn message(lost: &LostRequests) -> String {
    let (replica, error) = (&lost.replica, &lost.error);
    let mut requests = match lost.count {
        1 => "1 request".to_owned(),
        count => format!("{count} requests"),
    };
    if !ids(lost).is_empty() {
        let more = if lost.count > ids(lost).len() as u64 { ", \u{2026}" } else { "" };
        requests = format!("{requests} ({}{more})", ids(lost).join(", "));
    }
    match lost.how {
        Loss::BrokeOff => {
            let suspect = lost.suspect.as_ref().map(|suspect| {
                let (request, before) = (&suspect.request, &suspect.before);
                format!(
                    "; {before} had broken off with {request} before, so that request may have ended both, and is not \
                     sent again"
                )
            });
            format!("{replica} broke off before it had answered {requests}: {error}{}", suspect.unwrap_or_default())
        }
        Loss::ReplicaEnded => format!(
            "{replica} was ended before it had answered {requests}, which took longer than the deployment's \
             request_timeout_ms gives a replica that is told to end: {error}"
        ),
        Loss::GatewayEnded => format!(
            "a gateway was ended before {replica} had answered {requests}, which took longer than gateway.drain_ms; \
             raise it to the deployment's request_timeout_ms"
        ),
    }
}
