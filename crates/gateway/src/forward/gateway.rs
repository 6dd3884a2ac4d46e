//! The state that all serving threads share.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::SystemTime,
};

use api::{Timestamp, ejected::Ejected, lost::LostRequests};
use base::{Clock, Tasks};
use tokio::time::Instant;

use crate::{
    admit::limits::Counts,
    config::Config,
    observe::{counters::Counters, reports::Reports},
    table::routes::Table,
    wire::headers::Ids,
};

/// The state that all serving threads share.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) table: Arc<Table>,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) counts: Arc<Counts>,
    pub(crate) counters: Counters,
    /// Records that could not be written to disk.
    pub(crate) records_lost: Arc<AtomicU64>,
    /// Lost requests, until they are reported to the control plane.
    pub(crate) lost: Reports<LostRequests>,
    /// Ejected replicas, until they are reported to the control plane.
    pub(crate) ejected: Reports<Ejected>,
    started: Instant,
}

impl Gateway {
    pub(crate) fn new(config: Config, tasks: Tasks, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            config,
            table: Arc::new(Table::new()),
            tasks,
            clock,
            ids: Ids::new(),
            counts: Arc::default(),
            counters: Counters::default(),
            records_lost: Arc::default(),
            lost: Reports::default(),
            ejected: Reports::default(),
            started: Instant::now(),
        })
    }

    /// Milliseconds since the gateway started, from 1.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The current wall-clock time.
    pub(crate) fn now(&self) -> Timestamp {
        let now: SystemTime = self.clock.now();
        now.into()
    }

    /// Why the gateway cannot serve yet.
    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        if self.tasks.is_stopping() {
            Some("this gateway is shutting down")
        } else if !self.table.holds() {
            Some("this gateway has no route table yet: it is waiting for the control plane (gateway.control_url)")
        } else {
            None
        }
    }
}
