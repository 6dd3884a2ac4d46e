//! Connections to replicas, and the bodies that are sent on them.

pub(crate) mod body;
pub(crate) mod executor;
pub(crate) mod http1;
pub(crate) mod http2;
mod pieces;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod socket;
pub(crate) mod split;
