//! Counts the users of an HTTP/2 connection.

use std::sync::Arc;

/// A place among the calls of a connection, until it is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// It has as many owners as the connection has calls, plus the owner of the connection.
    one: Arc<()>,
}

impl Place {
    /// The number of owners, including that of the connection.
    pub(super) fn count(&self) -> usize {
        Arc::strong_count(&self.one)
    }

    /// Whether both are of the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.one, &other.one)
    }
}
