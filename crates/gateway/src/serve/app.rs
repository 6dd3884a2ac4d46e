//! What all parts of the server share.

use std::sync::{Arc, atomic::AtomicUsize};

use tokio::sync::Semaphore;

use crate::{
    forward::{gateway::Gateway, lane::Lane},
    observe::usage::Usages,
    table::watch::Watch,
};

/// What all parts of the server share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) gateway: Arc<Gateway>,
    /// The serving threads'.
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) watch: Arc<Watch>,
    /// Connections of clients.
    pub(crate) open: AtomicUsize,
    pub(crate) usages: Usages,
    /// Held by whoever looks through all names: one at a time.
    pub(crate) names: Semaphore,
}

impl App {
    pub(crate) fn new(gateway: Arc<Gateway>, threads: usize) -> Arc<Self> {
        let url = gateway.config.control_url.clone();
        let (table, tasks, clock) = (Arc::clone(&gateway.table), gateway.tasks.clone(), gateway.clock.clone());
        Arc::new(Self {
            lanes: (0..threads).map(|index| Lane::new(index, Arc::clone(&gateway))).collect(),
            watch: Arc::new(Watch::new(url, gateway.config.drain_ms, table, tasks, clock)),
            open: AtomicUsize::new(0),
            usages: Usages::default(),
            names: Semaphore::new(1),
            gateway,
        })
    }
}
