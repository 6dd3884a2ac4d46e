//! What went wrong here, as errors of a backend.

use crate::{BackendError, BoxError};

/// The kind of backend, for errors.
pub(super) const BACKEND: &str = "process";
pub(super) fn unavailable(source: impl Into<BoxError>) -> BackendError {
    BackendError::Unavailable { backend: BACKEND, source: source.into() }
}
