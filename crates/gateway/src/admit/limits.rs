//! The limits on requests in flight and on bodies in memory.
//!
//! A request takes its place once all of a held body has arrived, so that clients that send slowly keep nobody out. A
//! body that is forwarded while it arrives needs its place before; such bodies take at most half of the places of a
//! deployment.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::StatusCode;

use crate::{
    config::Config,
    observe::counters::{Counters, Reason},
    table::endpoint::Endpoint,
    wire::refusal::Refusal,
};

/// The counters over all threads.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Requests in flight.
    pub(crate) in_flight: AtomicUsize,
    /// Bytes of bodies held in memory.
    pub(crate) held_bytes: AtomicUsize,
}

/// The limits for one thread: the values that are cloned for each request are not shared with other threads.
#[derive(Debug)]
pub(crate) struct Limits {
    counts: Arc<Counts>,
    in_flight: usize,
    in_flight_per_deployment: usize,
    held_bytes: usize,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// `gateway.max_in_flight`.
    Gateway(usize),
    /// `gateway.max_in_flight_per_deployment`.
    Deployment(usize),
    /// Half of that, for bodies that are forwarded while they arrive.
    Streaming(usize),
}

impl Full {
    fn refusal(self, name: &str) -> Refusal {
        let (status, words) = match self {
            Self::Gateway(most) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{most} requests are in flight at this gateway (gateway.max_in_flight)"),
            ),
            Self::Deployment(most) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!("{most} requests are in flight for {name} (gateway.max_in_flight_per_deployment)"),
            ),
            Self::Streaming(most) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "{most} requests with bodies longer than gateway.buffer_body_bytes are in flight for {name} (half \
                     of gateway.max_in_flight_per_deployment)"
                ),
            ),
        };
        Refusal { retry_after: Some(1), ..Refusal::new(status, format!("{words}; try again in a moment")) }
    }
}

impl Limits {
    pub(crate) fn new(config: &Config, counts: Arc<Counts>) -> Self {
        Self {
            counts,
            in_flight: config.max_in_flight,
            in_flight_per_deployment: config.max_in_flight_per_deployment,
            held_bytes: config.buffer_total_bytes,
        }
    }
}

/// The share of one request in the limits, until it is over.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Arc<Limits>,
    held: usize,
    /// Whether it has a place among the requests in flight, and which deployment's that is.
    entered: bool,
    place: Option<Arc<Endpoint>>,
    streaming: bool,
}

impl Admission {
    /// An empty share.
    pub(crate) fn new(limits: &Arc<Limits>) -> Self {
        Self { limits: Arc::clone(limits), held: 0, entered: false, place: None, streaming: false }
    }

    /// Adds `more` bytes of a held body; false if that exceeds the limit, and then nothing is counted.
    pub(crate) fn hold(&mut self, more: usize) -> bool {
        let bytes = &self.limits.counts.held_bytes;
        if bytes.fetch_add(more, Ordering::AcqRel) + more > self.limits.held_bytes {
            bytes.fetch_sub(more, Ordering::AcqRel);
            return false;
        }
        self.held += more;
        true
    }

    /// Takes a place among the requests in flight of the gateway and of one deployment.
    pub(crate) fn enter(
        &mut self,
        endpoint: &Arc<Endpoint>,
        streaming: bool,
        counters: &Counters,
    ) -> Result<(), Refusal> {
        self.take_place(endpoint, streaming).map_err(|full| {
            counters.refused(Reason::Full);
            full.refusal(&endpoint.name())
        })
    }

    /// Takes a place among the requests in flight of the gateway, for one that no replica answers.
    pub(crate) fn enter_own(&mut self, counters: &Counters) -> Result<(), Refusal> {
        self.take_any().map_err(|full| {
            counters.refused(Reason::Full);
            full.refusal("")
        })
    }

    fn take_any(&mut self) -> Result<(), Full> {
        self.entered = true;
        let all = self.limits.counts.in_flight.fetch_add(1, Ordering::AcqRel);
        if all < self.limits.in_flight { Ok(()) } else { Err(Full::Gateway(self.limits.in_flight)) }
    }

    fn take_place(&mut self, endpoint: &Arc<Endpoint>, streaming: bool) -> Result<(), Full> {
        self.take_any()?;
        let limits = Arc::clone(&self.limits);
        let own = endpoint.live.in_flight.fetch_add(1, Ordering::AcqRel);
        self.place = Some(Arc::clone(endpoint));
        if own >= limits.in_flight_per_deployment {
            return Err(Full::Deployment(limits.in_flight_per_deployment));
        }
        if streaming {
            self.streaming = true;
            let most = (limits.in_flight_per_deployment / 2).max(1);
            if endpoint.live.streaming.fetch_add(1, Ordering::AcqRel) >= most {
                return Err(Full::Streaming(most));
            }
        }
        Ok(())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.held > 0 {
            self.limits.counts.held_bytes.fetch_sub(self.held, Ordering::AcqRel);
        }
        if self.entered {
            self.limits.counts.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        let Some(endpoint) = &self.place else { return };
        endpoint.live.in_flight.fetch_sub(1, Ordering::AcqRel);
        if self.streaming {
            endpoint.live.streaming.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
