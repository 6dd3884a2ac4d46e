//! Why a request body ended early.

use std::{error::Error as _, io};

/// The error text for its sender.
#[must_use]
pub fn words(error: &hyper::Error) -> String {
    if by_client(error) {
        return format!("the body ended early: {error}");
    }
    let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    format!("the framing of the body is invalid: {why}")
}

/// Whether a body broke because its client disconnected, and not because of its content.
#[must_use]
pub fn by_client(error: &hyper::Error) -> bool {
    let Some(cause) = error.source() else { return error.is_incomplete_message() || error.is_canceled() };
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        return error.is_io() || (error.is_remote() && (error.is_reset() || error.is_go_away()));
    }
    // Invalid chunks are other kinds of errors.
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::TimedOut
        )
    )
}
