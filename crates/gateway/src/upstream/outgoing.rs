//! An HTTP/1 request to a replica (RFC 9112): the header, then the body, framed by its length or in chunks.
//!
//! The framing of the body is decided only here: what the client said about it is not forwarded.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::{
    HeaderMap, HeaderValue, Method, Request,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use super::body::SendBody;

/// Bodies up to this length are copied behind the header, so that both are sent as one piece.
const JOINED: usize = 8 << 10;
/// A larger buffer is freed after a request.
const KEPT: usize = 64 << 10;

/// The unsent part of a request.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The data before `piece`, from `written` on.
    before: Vec<u8>,
    written: usize,
    piece: Bytes,
    after: &'static [u8],
    rest: Rest,
    /// Whether a byte of it was sent. Before that, nothing is read from a body that is forwarded while it arrives.
    pub(super) begun: bool,
}

/// The remaining part of the body.
#[derive(Debug)]
enum Rest {
    None,
    /// This many bytes.
    Length(SendBody, u64),
    Chunks(SendBody),
}

impl Outgoing {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self { before: Vec::new(), written: 0, piece: Bytes::new(), after: b"", rest: Rest::None, begun: false }
    }

    /// Begins to send a request. Takes its body and leaves its header.
    pub(super) fn begin(&mut self, request: &mut Request<SendBody>) {
        let body = std::mem::replace(request.body_mut(), SendBody::Held(None));
        self.before.clear();
        (self.written, self.piece, self.after, self.begun) = (0, Bytes::new(), b"", false);
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        for part in [request.method().as_str(), " ", path, " HTTP/1.1\r\n"] {
            self.before.extend_from_slice(part.as_bytes());
        }
        for (name, value) in request.headers() {
            if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
                self.before.extend_from_slice(name.as_str().as_bytes());
                self.before.extend_from_slice(b": ");
                self.before.extend_from_slice(value.as_bytes());
                self.before.extend_from_slice(b"\r\n");
            }
        }
        self.rest = Rest::None;
        match body {
            SendBody::Held(None) => {
                if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
                    self.before.extend_from_slice(b"content-length: 0\r\n");
                }
                self.before.extend_from_slice(b"\r\n");
            }
            SendBody::Held(Some(bytes)) => {
                self.length(bytes.len() as u64);
                if bytes.len() <= JOINED {
                    self.before.extend_from_slice(&bytes);
                } else {
                    self.piece = bytes;
                }
            }
            body @ (SendBody::Stream(_) | SendBody::Part(..)) => match announced(request.headers()) {
                Some(length) => {
                    self.length(length);
                    self.rest = Rest::Length(body, length);
                }
                None => {
                    self.before.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                    self.rest = Rest::Chunks(body);
                }
            },
        }
    }

    fn length(&mut self, length: u64) {
        self.before.extend_from_slice(b"content-length: ");
        self.before.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        self.before.extend_from_slice(b"\r\n\r\n");
    }

    /// The body of a request that was not begun, if it is forwarded while it arrives.
    pub(super) fn take_back(&mut self) -> Option<SendBody> {
        match std::mem::replace(&mut self.rest, Rest::None) {
            Rest::None => None,
            Rest::Length(body, _) | Rest::Chunks(body) => Some(body),
        }
    }

    /// Whether all of it was sent.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.rest, Rest::None) && self.is_flushed()
    }

    fn is_flushed(&self) -> bool {
        self.written == self.before.len() && self.piece.is_empty() && self.after.is_empty()
    }

    /// Frees large buffers.
    pub(super) fn rest(&mut self) {
        self.piece = Bytes::new();
        if self.before.capacity() > KEPT {
            self.before = Vec::new();
        }
    }

    /// Sends the available data.
    pub(super) fn poll<S: AsyncWrite + Unpin>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.is_flushed() {
                let (before, piece) = (&self.before[self.written..], &*self.piece);
                let sent = if piece.is_empty() && self.after.is_empty() {
                    Pin::new(&mut *socket).poll_write(cx, before)
                } else {
                    let parts = [before, piece, self.after].map(IoSlice::new);
                    Pin::new(&mut *socket).poll_write_vectored(cx, &parts)
                };
                let sent = ready!(sent)?;
                if sent == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.begun = true;
                let of_before = sent.min(before.len());
                let of_piece = (sent - of_before).min(piece.len());
                self.written += of_before;
                self.piece.advance(of_piece);
                self.after = &self.after[sent - of_before - of_piece..];
            }
            if matches!(self.rest, Rest::None) {
                return Poll::Ready(Ok(()));
            }
            self.before.clear();
            self.written = 0;
            ready!(self.poll_body(cx))?;
        }
    }

    /// Queues the next piece of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (Rest::Length(body, _) | Rest::Chunks(body)) = &mut self.rest else { return Poll::Ready(Ok(())) };
        let frame = ready!(Pin::new(body).poll_frame(cx)).transpose().map_err(io::Error::other)?;
        let ended = frame.is_none();
        let data = frame.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
        match &mut self.rest {
            Rest::Length(_, left) => {
                *left = left.checked_sub(data.len() as u64).ok_or_else(|| wrong_length("longer"))?;
                if ended && *left > 0 {
                    return Poll::Ready(Err(wrong_length("shorter")));
                }
                self.piece = data;
            }
            Rest::Chunks(_) if ended => self.before.extend_from_slice(b"0\r\n\r\n"),
            Rest::Chunks(_) if data.is_empty() => {}
            Rest::Chunks(_) => {
                write!(self.before, "{:x}\r\n", data.len())?;
                self.piece = data;
                self.after = b"\r\n";
            }
            Rest::None => {}
        }
        if ended {
            self.rest = Rest::None;
        }
        Poll::Ready(Ok(()))
    }
}

/// The length in the header of the request.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes).and_then(|it| std::str::from_utf8(it).ok()?.parse().ok())
}

fn wrong_length(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the body is {how} than its content-length"))
}

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
