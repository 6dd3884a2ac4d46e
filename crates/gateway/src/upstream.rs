//! Connections to replicas, and the bodies that are sent on them.

mod answer;
pub(crate) mod body;
mod decode;
pub(crate) mod executor;
pub(crate) mod http1;
pub(crate) mod http2;
mod outgoing;
mod pieces;
pub(crate) mod place;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod socket;
pub(crate) mod split;
