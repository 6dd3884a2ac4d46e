//! The sender of a request, as far as needed for fairness between callers.

/// A caller. Each connection is one, so that a connection with a thousand requests does not push the single request of
/// another one to the end of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Caller(pub(crate) u64);
