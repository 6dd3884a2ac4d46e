//! What one serving thread forwards with: its connections to replicas, its records, its clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use super::gateway::Gateway;
use crate::{
    admit::limits::Limits,
    observe::records::Records,
    table::{
        replica::Replica,
        stats::{ADDED_US, Histogram},
    },
    upstream::{pool::Pool, probe},
};

/// The clock of timeouts of connections.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// Connections to replicas are closed after so many ticks without a request.
const IDLE_LINK: u32 = 120;
/// A replica that owes answers is probed when it has said nothing for so many ticks.
const SILENCE: u32 = 4;
/// How long a probe waits. A replica that is only busy answers one at once.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// Between two probes of a replica that hangs.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// What one serving thread forwards with.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Which thread.
    pub(crate) index: usize,
    /// What all of them share.
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) pool: Pool,
    /// Records that wait to be written.
    pub(crate) records: Arc<Records>,
    /// The gateway's own share of each request's time.
    pub(crate) added: Histogram,
    tick: AtomicU32,
    /// The end waits no more for what is in flight.
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

    /// The thread ends now: what is dropped from now on is cut off.
    pub(crate) fn cut(&self) {
        self.cuts.store(true, Ordering::Relaxed);
    }

    /// Whether what is dropped now is cut off by the end.
    pub(crate) fn cuts(&self) -> bool {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Moves the clock on.
    pub(crate) fn count_tick(&self) -> u32 {
        let ticks = self.gateway.now_ms() / u64::try_from(TICK.as_millis()).unwrap_or(250);
        let now = u32::try_from(ticks).unwrap_or(u32::MAX).saturating_add(1);
        self.tick.store(now, Ordering::Relaxed);
        now
    }

    /// Closes what nobody has used for long, and probes who owes answers and says nothing.
    pub(crate) fn look_after_replicas(self: &Arc<Self>) {
        let now = self.tick();
        self.pool.close_idle(now.saturating_sub(IDLE_LINK));
        for replica in self.pool.silent(now, SILENCE) {
            let lane = Arc::clone(self);
            self.gateway.tasks.spawn(async move { lane.probe(&replica).await });
        }
    }

    /// Probes until there is an answer. Until then the replica gets no request.
    async fn probe(&self, replica: &Arc<Replica>) {
        let mut hangs = false;
        while probe::is_silent(replica, PROBE_PATIENCE).await {
            if !std::mem::replace(&mut hangs, true) {
                replica.hangs();
                let (replica, seconds) = (&replica.id, PROBE_PATIENCE.as_secs());
                tracing::warn!(
                    replica,
                    "a replica owes answers and answers no probe within {seconds} s; it is avoided"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(PROBE_PAUSE) => {}
                () = self.gateway.tasks.stopping() => return,
            }
            if Arc::strong_count(replica) == 1 {
                // No route names it any more.
                return;
            }
        }
        replica.end_probe(self.tick());
        if hangs {
            tracing::info!(replica = &replica.id, "a replica answers probes again");
        }
    }
}
