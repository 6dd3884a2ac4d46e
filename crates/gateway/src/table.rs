//! The route table: endpoints with their revisions and replicas, the watch of the control plane, and the copy on disk.

pub(crate) mod endpoint;
pub(crate) mod fatal;
mod few;
mod names;
pub(crate) mod replica;
pub(crate) mod routes;
pub(crate) mod saved;
mod shards;
pub(crate) mod stats;
pub(crate) mod watch;
