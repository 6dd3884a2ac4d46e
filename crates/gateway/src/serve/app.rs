//! What all parts of the server share.

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

/// Answers a gRPC client that asks for the definitions of the services, which are those of a model server.
pub type Reflect = fn(Request<Incoming>) -> BoxFuture<'static, Response<BoxBody>>;

/// What all parts of the server share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) gateway: Arc<Gateway>,
    /// The serving threads'.
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) watch: Arc<Watch>,
    /// Connections of clients.
    pub(crate) open: AtomicUsize,
    /// Calls over HTTP/2 of all connections.
    pub(crate) calls: Arc<Calls>,
    pub(crate) usages: Usages,
    /// Where the table stands; told whenever it changes.
    pub(crate) moved: watch::Sender<Position>,
    /// Answers reflection.
    pub(crate) reflect: Reflect,
    /// The gateway's own metrics, and those of all replicas, while they are collected.
    pub(crate) pages: Pages,
    pub(crate) replica_pages: Pages,
    /// Runs what would keep a serving thread's event loop from its requests.
    pub(crate) runtime: Handle,
    /// Held by whoever looks through all names: one at a time.
    pub(crate) names: Semaphore,
}

impl App {
    pub(crate) fn new(gateway: Arc<Gateway>, threads: usize, runtime: Handle, reflect: Reflect) -> Arc<Self> {
        let url = gateway.config.control_url.clone();
        let (table, tasks, clock) = (Arc::clone(&gateway.table), gateway.tasks.clone(), gateway.clock.clone());
        // The bound on requests in flight is the operator's, and holds over HTTP/2 too.
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
