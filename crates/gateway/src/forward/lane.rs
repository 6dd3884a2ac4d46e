//! What one serving thread needs to forward requests: connections to replicas, records, a clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{ejection, gateway::Gateway};
use crate::{
    admit::limits::Limits,
    observe::records::Records,
    table::{
        replica::Replica,
        stats::{ADDED_US, Histogram},
    },
    upstream::{pool::Pool, probe},
};

/// The clock for connection timeouts.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Connections to replicas are closed after this many ticks without a request.
const IDLE_LINK: u32 = 120;
/// A replica with outstanding requests is probed if it has sent nothing for this many ticks.
const SILENCE: u32 = 4;
/// Timeout of a probe. A replica that is only busy answers at once.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// The delay between two probes of a hung replica.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// The state that one serving thread needs to forward requests.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The index of the thread.
    pub(crate) index: usize,
    /// The shared state.
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) pool: Pool,
    /// Records that wait to be written.
    pub(crate) records: Arc<Records>,
    /// The gateway's own share of the time of each request.
    pub(crate) added: Histogram,
    tick: AtomicU32,
    /// Shutdown no longer waits for requests in flight.
    cuts: AtomicBool,
}

impl Lane {
    pub(crate) fn new(index: usize, gateway: Arc<Gateway>) -> Arc<Self> {
        Arc::new(Self {
            index,
            limits: Arc::new(Limits::new(&gateway.config, Arc::clone(&gateway.counts))),
            pool: Pool::default(),
            records: Arc::new(Records::new(&gateway.config)),
            added: Histogram::new(&ADDED_US),
            tick: AtomicU32::new(1),
            cuts: AtomicBool::new(false),
            gateway,
        })
    }

    /// Quarters of a second since the start, from 1. Nearly the same on all threads.
    pub(crate) fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// The thread ends now: requests that are dropped from now on count as cut off.
    pub(crate) fn cut(&self) {
        self.cuts.store(true, Ordering::Relaxed);
    }

    /// Whether requests that are dropped now are cut off by the shutdown.
    pub(crate) fn cuts(&self) -> bool {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Advances the clock.
    pub(crate) fn count_tick(&self) -> u32 {
        let ticks = self.gateway.now_ms() / u64::try_from(TICK.as_millis()).unwrap_or(250);
        let now = u32::try_from(ticks).unwrap_or(u32::MAX).saturating_add(1);
        self.tick.store(now, Ordering::Relaxed);
        now
    }

    /// Closes idle connections, and probes silent replicas with outstanding requests.
    pub(crate) fn look_after_replicas(self: &Arc<Self>) {
        let now = self.tick();
        self.pool.close_idle(now.saturating_sub(IDLE_LINK));
        for replica in self.pool.silent(now, SILENCE) {
            let lane = Arc::clone(self);
            self.gateway.tasks.spawn(async move { lane.probe(&replica).await });
        }
    }

    /// Probes until there is an answer. Until then the replica gets no requests.
    async fn probe(&self, replica: &Arc<Replica>) {
        let mut hangs = false;
        while probe::is_silent(replica, PROBE_PATIENCE).await {
            if !std::mem::replace(&mut hangs, true) {
                let error = format!("it did not answer a probe within {} s", PROBE_PATIENCE.as_secs());
                ejection::hangs(&self.gateway, replica, &error);
                tracing::warn!(
                    replica = &replica.id,
                    "a replica with outstanding requests gets no more of them: {error}"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(PROBE_PAUSE) => {}
                () = self.gateway.tasks.stopping() => return,
            }
            if Arc::strong_count(replica) == 1 {
                // No route contains it any more.
                return;
            }
        }
        replica.end_probe(self.tick());
        if hangs {
            tracing::info!(replica = &replica.id, "a replica answers probes again");
        }
    }
}
