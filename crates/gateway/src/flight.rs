//! One request that is being answered: what it holds while it is, and what is counted when it is over.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::HeaderMap;
use tokio::time::Instant;

use crate::{
    conn::Busy,
    grpc,
    record::{Draft, Record},
    replica::Replica,
    shard::Shard,
    table::{Endpoint, Revision},
    upstream::Link,
};

/// A place among the requests in flight of the gateway and of one deployment.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shard: Arc<Shard>,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// `gateway.max_in_flight`.
    Gateway(usize),
    /// `gateway.max_in_flight_per_deployment`.
    Deployment(usize),
}

impl Place {
    /// Takes a place.
    pub(crate) fn take(shard: &Arc<Shard>, endpoint: &Arc<Endpoint>) -> Result<Self, Full> {
        let app = &shard.app;
        let all = app.in_flight.fetch_add(1, Ordering::AcqRel);
        let own = endpoint.live.in_flight.fetch_add(1, Ordering::AcqRel);
        let place = Self { shard: Arc::clone(shard), endpoint: Arc::clone(endpoint) };
        if all >= app.config.max_in_flight {
            Err(Full::Gateway(app.config.max_in_flight))
        } else if own >= app.config.max_in_flight_per_deployment {
            Err(Full::Deployment(app.config.max_in_flight_per_deployment))
        } else {
            Ok(place)
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.endpoint.live.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.shard.app.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One request outstanding at a replica.
#[derive(Debug)]
pub(crate) struct Claim(pub(crate) Arc<Replica>);

impl Claim {
    pub(crate) fn new(replica: &Arc<Replica>) -> Self {
        replica.outstanding.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(replica))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of held bodies, counted against `gateway.buffer_total_bytes`.
#[derive(Debug)]
pub(crate) struct Held {
    shard: Arc<Shard>,
    bytes: usize,
}

impl Held {
    pub(crate) fn new(shard: &Arc<Shard>) -> Self {
        Self { shard: Arc::clone(shard), bytes: 0 }
    }

    /// Counts `more` bytes; false if that would be too many, and then nothing is counted.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let app = &self.shard.app;
        if app.held_bytes.fetch_add(more, Ordering::AcqRel) + more > app.config.buffer_total_bytes {
            app.held_bytes.fetch_sub(more, Ordering::AcqRel);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shard.app.held_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        }
    }
}

/// A request that a replica is answering.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) busy: Busy,
    pub(crate) place: Place,
    /// Kept for its end only.
    pub(crate) _held: Held,
    pub(crate) revision: Arc<Revision>,
    pub(crate) claim: Claim,
    /// When the request's head was read.
    pub(crate) started: Instant,
    /// When the attempt began that was answered.
    pub(crate) sent: Instant,
    pub(crate) code: u16,
    pub(crate) draft: Option<Draft>,
    /// Whether the answer came to its end.
    pub(crate) whole: bool,
}

impl Flight {
    /// Notes a piece of the answer.
    pub(crate) fn saw_output(&mut self, data: &[u8]) {
        if let Some(payloads) = self.draft.as_mut().and_then(|draft| draft.payloads.as_mut()) {
            payloads.output.add(data, self.place.shard.app.config.record_payload_bytes);
        }
    }

    /// Notes how a gRPC answer ended.
    pub(crate) fn saw_trailers(&mut self, trailers: &HeaderMap) {
        if let Some(code) = grpc::http_code(trailers) {
            self.code = code.as_u16();
        }
    }

    /// The replica broke off within its answer.
    pub(crate) fn broke_off(&mut self) {
        self.claim.0.eject(self.place.shard.app.now_ms());
    }

    /// Gives a connection back to its pool.
    pub(crate) fn keep(&self, mut link: Link) {
        let shard = &self.place.shard;
        link.used_at = shard.tick();
        if self.claim.0.keep_idle(shard.index, link) {
            shard.has_idle(&self.claim.0);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let now = Instant::now();
        let total = micros(now.duration_since(self.started));
        let upstream = micros(now.duration_since(self.sent));
        let shard = &self.place.shard;
        let stats = self.revision.live.stats.get();
        stats.count(self.code);
        stats.latency.observe(total);
        shard.added.observe(total.saturating_sub(upstream));
        if let Some(draft) = self.draft.take() {
            shard.records.push(Record {
                at: shard.app.clock.now().into(),
                draft,
                endpoint: Arc::clone(&self.place.endpoint),
                revision: Arc::clone(&self.revision),
                replica: Arc::clone(&self.claim.0),
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
