//! One request in flight: its resources, and the counters at its end.

use std::{sync::Arc, time::Duration};

use api::ejected::Cause;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::{ejection, lane::Lane, loss};
use crate::{
    admit::limits::Admission,
    observe::records::{Draft, Record},
    table::{
        endpoint::{Endpoint, Revision},
        replica::Replica,
    },
    upstream::{http1::Link, http2::Grpc},
    wire::grpc,
};

/// One outstanding request at a replica.
#[derive(Debug)]
pub(crate) struct Claim(pub(crate) Arc<Replica>);

impl Claim {
    /// Counts a request that the replica gets at `tick`.
    pub(crate) fn new(replica: &Arc<Replica>, tick: u32) -> Self {
        replica.asked(tick);
        Self(Arc::clone(replica))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.released();
    }
}

/// A request that a replica is answering.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) lane: Arc<Lane>,
    /// Kept only to be dropped at the end.
    pub(crate) _admission: Admission,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) revision: Arc<Revision>,
    pub(crate) claim: Claim,
    /// The request's id.
    pub(crate) id: Option<HeaderValue>,
    /// When the header of the request was read.
    pub(crate) started: Instant,
    /// When the answered attempt began.
    pub(crate) sent: Instant,
    pub(crate) code: u16,
    pub(crate) draft: Option<Draft>,
    /// Whether the answer was complete.
    pub(crate) whole: bool,
}

impl Flight {
    /// Records a piece of the answer.
    pub(crate) fn saw_output(&mut self, data: &[u8]) {
        self.claim.0.heard(self.lane.tick());
        if let Some(payloads) = self.draft.as_mut().and_then(|draft| draft.payloads.as_mut()) {
            payloads.output.add(data, self.lane.gateway.config.record_payload_bytes);
        }
    }

    /// Records how a gRPC answer ended.
    pub(crate) fn saw_trailers(&mut self, trailers: &HeaderMap) {
        if let Some(code) = grpc::http_code(trailers) {
            self.code = code.as_u16();
        }
    }

    /// The replica stopped within its answer; `error`: its connection broke.
    pub(crate) fn broke_off(&mut self, error: Option<&str>) {
        let gateway = &self.lane.gateway;
        let cut = "it did not complete its answer";
        ejection::eject(gateway, &self.claim.0, Cause::BrokeOff, error.unwrap_or(cut));
        if let Some(error) = error {
            loss::broke_off(gateway, &self.endpoint, &self.revision, &self.claim.0, self.id.as_ref(), error, None);
        }
    }

    /// Returns a connection to its pool.
    pub(crate) fn keep(&self, mut link: Link) {
        link.used_at = self.lane.tick();
        self.lane.pool.keep(&self.claim.0, link);
    }

    /// Returns the connection of a stream to its pool.
    pub(crate) fn keep_stream(&self, grpc: Grpc) {
        self.lane.pool.keep_stream(&self.claim.0, grpc, self.lane.tick());
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.whole {
            drop(loss::InHand {
                lane: &self.lane,
                endpoint: &self.endpoint,
                revision: &self.revision,
                replica: &self.claim.0,
                id: self.id.as_ref(),
            });
        }
        let now = Instant::now();
        let total = micros(now.duration_since(self.started));
        let upstream = micros(now.duration_since(self.sent));
        let lane = &self.lane;
        let stats = self.revision.live.stats.get();
        stats.count(self.code);
        stats.latency.observe(total);
        lane.added.observe(total.saturating_sub(upstream));
        if let Some(draft) = self.draft.take() {
            lane.records.push(Record {
                at: lane.gateway.now(),
                draft,
                endpoint: &self.endpoint,
                revision: &self.revision,
                replica: &self.claim.0,
                code: self.code,
                whole: self.whole,
                latency_us: total,
            });
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
