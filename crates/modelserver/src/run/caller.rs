//! Who sends a request: as much as it takes to be fair between callers.

/// A caller. Each connection is one, so that a connection with a thousand requests under way does not push
/// another's one request to the end of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Caller(pub(crate) u64);
