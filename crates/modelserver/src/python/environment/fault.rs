//! Why there is no environment.

use std::{io, path::Path};

use crate::ServeError;

pub(super) fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> ServeError {
    let what = format!("{what}, {}", path.display());
    move |source| ServeError::Io { what, source }
}

/// Somebody must change something.
pub(super) fn failed(reason: String) -> ServeError {
    ServeError::Environment { reason, retry: false }
}

/// It may work another time.
pub(super) fn later(reason: String) -> ServeError {
    ServeError::Environment { reason, retry: true }
}
