//! Why the body of a request ended before its end.

use std::{error::Error as _, io};

/// What its sender is told.
#[must_use]
pub fn words(error: &hyper::Error) -> String {
    if by_client(error) {
        return format!("the body broke off: {error}");
    }
    let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    format!("the body cannot be read as it is framed: {why}")
}

/// Whether a body broke off because its client went away, and not because of what it sent.
#[must_use]
pub fn by_client(error: &hyper::Error) -> bool {
    let Some(cause) = error.source() else { return error.is_incomplete_message() || error.is_canceled() };
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        return error.is_io() || (error.is_remote() && (error.is_reset() || error.is_go_away()));
    }
    // Bytes that cannot be read as chunks are other kinds of errors.
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
