//! The response to a request that is not valid HTTP. hyper's own response has no body; here it gets one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::StatusCode;
use tokio::io::AsyncWrite;

use super::head::TOO_LARGE;

/// The error format of a server: the media type, and the body.
pub type Words = fn(StatusCode, &str) -> (&'static str, String);

/// The maximum length of hyper's own responses.
const LONGEST: usize = 256;

/// The statuses that hyper sends by itself.
const OWN: [StatusCode; 3] =
    [StatusCode::BAD_REQUEST, StatusCode::URI_TOO_LONG, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE];

/// The replacement for hyper's response; empty until there is one.
#[derive(Debug, Default)]
pub struct Unreadable(Vec<u8>);

impl Unreadable {
    /// Checks what is written over HTTP/1 while no request is in progress and every answer has been written, and
    /// returns how much of it goes to the client unchanged. If that is nothing, it is hyper's own response: it counts
    /// as written, and [`Self::poll_write`] writes the replacement.
    pub fn replace(&mut self, bytes: &[u8], words: Words) -> usize {
        let Some((at, status)) = answer_in(bytes) else { return bytes.len() };
        if at == 0 {
            self.0 = answer(status, words);
        }
        at
    }

    /// Whether there was such a response.
    #[must_use]
    pub fn is_some(&self) -> bool {
        !self.0.is_empty()
    }

    /// Writes the replacement. Called at shutdown of the connection; the client may still be sending.
    ///
    /// # Errors
    /// Any error of the socket.
    pub fn poll_write(&mut self, mut to: impl AsyncWrite + Unpin, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.0.is_empty() {
            let count = ready!(Pin::new(&mut to).poll_write(cx, &self.0))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.0.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

/// The position of hyper's response, which is always the last one, and its status.
fn answer_in(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let from = bytes.len().saturating_sub(LONGEST);
    let tail = &bytes[from..];
    let at = tail.windows(10).rposition(|window| window == b"HTTP/1.1 4")?;
    let head = &tail[at..];
    let has = |words: &[u8]| head.windows(words.len()).any(|window| window.eq_ignore_ascii_case(words));
    let status = StatusCode::from_bytes(head.get(9..12)?).ok()?;
    let own = OWN.contains(&status)
        && has(b"\r\nconnection: close\r\n")
        && has(b"\r\ncontent-length: 0\r\n")
        && !has(b"\r\ncontent-type:");
    own.then_some((from + at, status))
}

fn answer(status: StatusCode, words: Words) -> Vec<u8> {
    let (kind, body) = words(
        status,
        match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => TOO_LARGE,
            StatusCode::URI_TOO_LONG => "the request's path is too long: at most 64 KiB",
            _ => {
                "the request cannot be read as HTTP/1.1: look at its first line, at the names and values of its headers \
                 and at their line ends; if it is HTTPS, use http://"
            }
        },
    );
    let (code, reason, length) = (status.as_u16(), status.canonical_reason().unwrap_or_default(), body.len());
    format!(
        "HTTP/1.1 {code} {reason}\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\
        date: Sat, 28 Nov 2026 08:00:00 GMT\r\n\r\n";

    fn json(status: StatusCode, words: &str) -> (&'static str, String) {
        ("application/json", format!("{status} {words}"))
    }

    #[test]
    fn only_an_answer_of_hypers_own_is_replaced_and_what_comes_before_it_is_not() {
        let mut unreadable = Unreadable::default();
        for other in [
            &b"HTTP/1.1 400 Bad Request\r\ncontent-type: a/b\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
            b"",
            b"HTTP/1.1 4",
        ] {
            assert_eq!(unreadable.replace(other, json), other.len());
        }
        let before = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(unreadable.replace(&[before, ANSWER].concat(), json), before.len());
        assert!(!unreadable.is_some(), "what comes before it is written first");
        assert_eq!(unreadable.replace(ANSWER, json), 0);
        let text = String::from_utf8(unreadable.0).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 431 ") && head.contains("\r\nconnection: close"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.starts_with("431 "), "{body}");
    }
}
