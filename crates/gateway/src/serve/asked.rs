//! A request with a known endpoint, over HTTP or gRPC: admits it, chooses its revision, and prepares its record.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode};
use tokio::time::Instant;

use super::name::Named;
use crate::{
    admit::limits::Admission,
    choose::split,
    forward::{attempts::Call, head::Protocol, lane::Lane, receive::Received},
    observe::records::Draft,
    table::endpoint::Revision,
    wire::{alarm::Alarm, refusal::Refusal},
};

/// How long a stream of requests may pause: the client or the model decides, and HTTP/2 pings detect a client that is
/// gone.
const RESTING: Duration = Duration::from_secs(86_400);

/// Who sends the request, as far as the header shows it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) started: Instant,
    pub(crate) id: HeaderValue,
    pub(crate) protocol: Protocol,
    /// When the caller's own time for the call is up.
    pub(crate) until: Option<Instant>,
}

/// A request with a known endpoint and a body that has arrived or is arriving.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) lane: Arc<Lane>,
    pub(crate) asked: Asked,
    pub(crate) named: Named,
    /// What the replica gets besides the body.
    pub(crate) head: Request<()>,
    pub(crate) body: Received,
    pub(crate) admission: Admission,
    pub(crate) alarm: Alarm,
}

impl Ready {
    /// Takes a place among the requests in flight and chooses the revision.
    pub(crate) fn admit(mut self) -> Result<(Call, Request<()>, Received), Refusal> {
        let now = Instant::now();
        if self.asked.until.is_some_and(|until| until <= now) {
            self.named.endpoint.count_refusal(StatusCode::GATEWAY_TIMEOUT);
            return Err(Refusal::late());
        }
        let revision = self.enter()?;
        let draft = self.draft();
        let Self { lane, asked, named, head, body, admission, alarm } = self;
        let route = Duration::from_millis(named.endpoint.route.request_timeout_ms);
        // What the client took to send its body is not the replica's, but it is the caller's own time.
        let timeout = asked.until.map_or(route, |until| until.saturating_duration_since(now).min(route));
        let call = Call {
            lane,
            admission,
            revision,
            versioned: named.version.is_some(),
            protocol: asked.protocol,
            started: asked.started,
            until: asked.until,
            alarm,
            timeout,
            gap: if named.streams { RESTING } else { route },
            draft,
            endpoint: named.endpoint,
        };
        Ok((call, head, body))
    }

    fn enter(&mut self) -> Result<Arc<Revision>, Refusal> {
        let (endpoint, version) = (&self.named.endpoint, self.named.version.as_deref());
        let comes = self.body.streams();
        let placed = self.admission.enter(endpoint, comes && !self.named.streams, &self.lane.gateway.counters);
        placed.and_then(|()| split::choose(endpoint, version).map(Arc::clone)).map_err(|refusal| {
            endpoint.count_refusal(refusal.status);
            if comes { refusal.closing() } else { refusal }
        })
    }

    /// The record of a prediction.
    fn draft(&self) -> Option<Draft> {
        let kind = self.named.kind.filter(|_| self.lane.records.wanted())?;
        let (log, most) = (self.named.endpoint.route.log_payloads, self.lane.gateway.config.record_payload_bytes);
        Some(Draft::new(kind, self.asked.id.clone(), log, self.body.bytes(), most))
    }
}
