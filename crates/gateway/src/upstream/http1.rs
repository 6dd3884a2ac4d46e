//! HTTP/1 connections to replicas.
//!
//! Such a connection has no task of its own: whoever sends on it also drives it, until the answer's body has ended and
//! the connection goes back to its replica's pool. So a request wakes one task instead of two, and nothing of it passes
//! through a channel.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use tokio_util::io::poll_read_buf;

use super::{
    answer,
    body::{SendBody, SendError, is_late},
    decode::{Decoded, Decoder},
    outgoing::Outgoing,
    socket::Socket,
};
use crate::wire::alarm::Alarm;

/// How much is read at once: this much, or more where much comes.
const READ: usize = 8 << 10;
const MOST_READ: usize = 256 << 10;

/// An HTTP/1 connection to a replica.
pub(crate) struct Link {
    wire: Box<Wire>,
    /// The tick of its last use.
    pub(crate) used_at: u32,
}

#[derive(Debug)]
struct Wire {
    socket: Socket,
    outgoing: Outgoing,
    /// What came and was not taken yet.
    input: BytesMut,
    read: usize,
    body: Decoder,
    /// Whether it serves another request after this one.
    stays: bool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("used_at", &self.used_at).finish_non_exhaustive()
    }
}

impl Link {
    /// Speaks HTTP/1 on a socket.
    pub(crate) fn new(socket: Socket) -> Self {
        let (outgoing, input) = (Outgoing::new(), BytesMut::new());
        let wire = Wire { socket, outgoing, input, read: READ, body: Decoder::Done, stays: true };
        Self { wire: Box::new(wire), used_at: 0 }
    }

    /// Sends a request and waits for the answer's head; the body is [`Self::poll_frame`]'s. `alarm` says when to give up;
    /// `extend` is asked then whether there is a reason to wait on. Of the request only the head is left then, and, if it
    /// was not sent ([`SendError::Unsent`]), a body that is sent on while it comes.
    pub(crate) async fn send(
        &mut self,
        request: &mut Request<SendBody>,
        alarm: &mut Alarm,
        mut extend: impl FnMut(&mut Alarm) -> bool,
    ) -> Result<Response<()>, SendError> {
        let wire = &mut *self.wire;
        // A replica has nothing to say now but that it has closed the connection.
        if wire.poll_read(&mut Context::from_waker(Waker::noop())).is_ready() {
            return Err(SendError::Unsent);
        }
        wire.outgoing.begin(request);
        wire.stays = false;
        let mut looked_at = 0;
        let answer = poll_fn(|cx| match wire.poll_head(cx, request.method(), &mut looked_at) {
            Poll::Ready(answer) => Poll::Ready(answer.map_err(SendError::Broken)),
            Poll::Pending if is_late(alarm, cx, &mut extend) => Poll::Ready(Err(SendError::TimedOut)),
            Poll::Pending => Poll::Pending,
        })
        .await;
        match answer {
            Err(SendError::Broken(_)) if !wire.outgoing.begun => {
                if let Some(body) = wire.outgoing.take_back() {
                    *request.body_mut() = body;
                }
                Err(SendError::Unsent)
            }
            answer => answer,
        }
    }

    /// The next piece of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        self.wire.poll_frame(cx).map(Result::transpose)
    }

    /// Whether the answer's body has ended.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.wire.body == Decoder::Done
    }

    /// What is known of the length of what comes of the answer's body.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.wire.body.size_hint()
    }

    /// The connection for the next request, if it serves one.
    pub(crate) fn again(mut self) -> Option<Self> {
        let wire = &mut *self.wire;
        let done = wire.body == Decoder::Done && wire.outgoing.is_done();
        // What comes behind an answer belongs to no request.
        if !done || !wire.stays || !wire.input.is_empty() {
            return None;
        }
        wire.outgoing.rest();
        if wire.read > READ {
            (wire.read, wire.input) = (READ, BytesMut::new());
        }
        Some(self)
    }
}

impl Wire {
    /// Sends what is left of the request, and reads until the answer's head is there.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        looked_at: &mut usize,
    ) -> Poll<Result<Response<()>, String>> {
        let mut failed = None;
        if let Poll::Ready(Err(error)) = self.outgoing.poll(&mut self.socket, cx) {
            if !self.outgoing.begun {
                return Poll::Ready(Err(error.to_string()));
            }
            // The replica may have answered before it closed.
            failed = Some(error);
        }
        loop {
            if let Some(head) = answer::take(&mut self.input, looked_at, method)? {
                self.body = head.body;
                self.stays = head.stays && failed.is_none();
                return Poll::Ready(Ok(head.response));
            }
            let read = self.poll_read(cx);
            if let (Some(error), Poll::Pending | Poll::Ready(Ok(0) | Err(_))) = (&failed, &read) {
                return Poll::Ready(Err(error.to_string()));
            }
            match ready!(read) {
                Ok(0) => return Poll::Ready(Err("it closed the connection".to_owned())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error.to_string())),
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, String>> {
        if !self.outgoing.is_done()
            && let Poll::Ready(Err(_)) = self.outgoing.poll(&mut self.socket, cx)
        {
            // It is answered all the same.
            (self.outgoing, self.stays) = (Outgoing::new(), false);
        }
        loop {
            match self.body.take(&mut self.input)? {
                Decoded::Frame(frame) => return Poll::Ready(Ok(Some(frame))),
                Decoded::End => return Poll::Ready(Ok(None)),
                Decoded::More => {}
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) if self.body == Decoder::UntilClosed => self.body = Decoder::Done,
                Ok(0) => return Poll::Ready(Err("the replica closed the connection within its answer".to_owned())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error.to_string())),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.reserve(self.read);
        let room = self.input.capacity() - self.input.len();
        let count = ready!(poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input))?;
        if count >= room {
            self.read = (self.read * 2).min(MOST_READ);
        } else if count < self.read / 4 {
            self.read = (self.read / 2).max(READ);
        }
        Poll::Ready(Ok(count))
    }
}
