//! Work on threads that may block.

use std::io;

use tokio::task::JoinHandle;

use crate::error::Failure;

/// The result of work on a thread that may block.
pub(crate) async fn blocking<T>(work: JoinHandle<T>) -> Result<T, Failure> {
    work.await.map_err(|error| Failure::Disk(io::Error::other(error)))
}
