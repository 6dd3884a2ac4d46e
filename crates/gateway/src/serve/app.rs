//! The state that all parts of the server share.

use std::sync::{Arc, atomic::AtomicUsize};

use base::serve::{MOST_CALLS, untaken::Calls};
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
};

use crate::{
    forward::{gateway::Gateway, lane::Lane, reply::BoxBody},
    observe::{pages::Pages, usage::Usages},
    table::{saved::Position, watch::Watch},
};

/// Answers gRPC reflection requests. The services are those of a model server.
pub type Reflect = fn(Request<Incoming>) -> BoxFuture<'static, Response<BoxBody>>;

/// The state that all parts of the server share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) gateway: Arc<Gateway>,
    /// The state of the serving threads.
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) watch: Arc<Watch>,
    /// The number of client connections.
    pub(crate) open: AtomicUsize,
    /// The HTTP/2 calls of all connections.
    pub(crate) calls: Arc<Calls>,
    pub(crate) usages: Usages,
    /// The position of the table; notified whenever it changes.
    pub(crate) moved: watch::Sender<Position>,
    /// Answers reflection.
    pub(crate) reflect: Reflect,
    /// The gateway's own metrics, and those of all replicas, while they are collected.
    pub(crate) pages: Pages,
    pub(crate) replica_pages: Pages,
    /// Runs work that would block the event loop of a serving thread.
    pub(crate) runtime: Handle,
    /// Held while all names are searched: one search at a time.
    pub(crate) names: Semaphore,
}

impl App {
    pub(crate) fn new(gateway: Arc<Gateway>, threads: usize, runtime: Handle, reflect: Reflect) -> Arc<Self> {
        let url = gateway.config.control_url.clone();
        let (table, tasks, clock) = (Arc::clone(&gateway.table), gateway.tasks.clone(), gateway.clock.clone());
        // The operator's limit on requests in flight applies over HTTP/2 too.
        let most_calls = MOST_CALLS.max(gateway.config.max_in_flight);
        Arc::new(Self {
            lanes: (0..threads).map(|index| Lane::new(index, Arc::clone(&gateway))).collect(),
            watch: Arc::new(Watch::new(url, gateway.config.drain_ms, table, tasks, clock)),
            open: AtomicUsize::new(0),
            calls: Arc::new(Calls::new(most_calls)),
            usages: Usages::default(),
            moved: watch::Sender::default(),
            reflect,
            pages: Pages::default(),
            replica_pages: Pages::default(),
            runtime,
            names: Semaphore::new(1),
            gateway,
        })
    }
}
