//! Events.

use api::{
    DeploymentId, Event,
    ejected::{Cause, Ejected},
    event::NewEvent,
    lost::{Loss, LostRequests, MOST_IDS},
};
use serde_json::json;
use store::{Order, Page};

use super::App;
use crate::error::Error;

impl App {
    /// Events of one deployment or of all. A deleted deployment still has its events; an id that never existed is
    /// refused.
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

    /// Stores each report as an event of its deployment. A report that was stored before is skipped.
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

    /// Stores each report as an event of its deployment. A report that was stored before is skipped.
    pub(crate) async fn replicas_ejected(&self, ejected: &[Ejected]) -> Result<(), Error> {
        for ejected in ejected {
            let event = NewEvent {
                revision: Some(ejected.revision),
                actor: "gateway",
                kind: "replica_ejected",
                message: ejection(ejected),
                evidence: json!({
                    "replica": ejected.replica, "cause": ejected.cause, "error": ejected.error,
                    "ejections": ejected.count, "pause_ms": ejected.pause_ms,
                }),
            };
            self.store.event_once(ejected.deployment, &ejected.key, event, self.now()).await?;
        }
        Ok(())
    }
}

fn ejection(ejected: &Ejected) -> String {
    let Ejected { replica, error, .. } = ejected;
    let why = match ejected.cause {
        Cause::Unreachable => "a gateway cannot connect to it",
        Cause::BrokeOff => "its connection to a gateway broke",
        Cause::Failing => "it failed several requests in a row",
        Cause::Hung => "it had unanswered requests and hangs",
    };
    let pause = match ejected.pause_ms {
        #[expect(clippy::cast_precision_loss, reason = "it is shown with one decimal")]
        Some(pause_ms) => format!("for {:.1} s, while other replicas can serve", pause_ms as f64 / 1_000.0),
        None => "until it answers a probe".to_owned(),
    };
    let times = match ejected.count {
        0 | 1 => String::new(),
        count => format!(" (ejection {count} since the last event)"),
    };
    format!("{replica} gets no requests {pause}, because {why}: {error}{times}")
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
                    "; the connection to {before} had broken with {request} too, so that request may have crashed both, and \
                     is not sent again"
                )
            });
            let suspect = suspect.unwrap_or_default();
            format!("the connection to {replica} broke before it answered {requests}: {error}{suspect}")
        }
        Loss::ReplicaEnded => format!(
            "{replica} was ended before it answered {requests}, which took longer than the deployment's request_timeout_ms \
             allows a replica that is told to stop: {error}"
        ),
        Loss::GatewayEnded => format!(
            "a gateway was ended before {replica} answered {requests}, which took longer than gateway.drain_ms; \
             raise it to the deployment's request_timeout_ms"
        ),
    }
}
