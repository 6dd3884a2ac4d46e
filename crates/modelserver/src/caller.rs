//! Who sends a request: as much as it takes to be fair between callers.

use std::sync::atomic::{AtomicU64, Ordering};

/// A caller. Each connection is one, so that a connection with a thousand requests under way does not push
/// another's one request to the end of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Caller(pub(crate) u64);

impl Caller {
    /// Another one.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
