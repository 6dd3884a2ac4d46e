//! HTTP/1 connections to replicas.
//!
//! Such a connection has no task of its own: the request that uses it also drives it, until the body of the answer has
//! ended and the connection returns to the pool of its replica. So a request wakes one task instead of two, and uses no
//! channel.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body::{Frame, SizeHint};
use tokio_util::io::poll_read_buf;

use super::{
    answer::{self, Looked},
    body::{SendBody, SendError, is_late},
    decode::{Decoded, Decoder},
    outgoing::Outgoing,
    socket::Socket,
};
use crate::wire::alarm::Alarm;

/// How much is read at once; more if much data arrives.
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
    /// Data that was read and not processed yet.
    input: BytesMut,
    read: usize,
    /// Whether the input buffer was larger than [`READ`] since the connection was last idle.
    grown: bool,
    /// An empty map for the headers of an answer.
    spare: HeaderMap,
    body: Decoder,
    /// Whether it can be used for another request.
    stays: bool,
    /// Whether a part of the answer has arrived.
    answering: bool,
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
        let spare = HeaderMap::new();
        let (read, body) = (READ, Decoder::Done);
        let wire = Wire { socket, outgoing, input, read, grown: false, spare, body, stays: true, answering: false };
        Self { wire: Box::new(wire), used_at: 0 }
    }

    /// Sends a request and waits for the header of the answer; [`Self::poll_frame`] reads the body. `alarm` says when
    /// to give up; then `extend` is asked whether there is a reason to continue. Afterwards only the header of the
    /// request is left and, if it was not sent ([`SendError::Unsent`]), a body that is forwarded while it arrives.
    pub(crate) async fn send(
        &mut self,
        request: &mut Request<SendBody>,
        alarm: &mut Alarm,
        mut extend: impl FnMut(&mut Alarm) -> bool,
    ) -> Result<Response<()>, SendError> {
        let wire = &mut *self.wire;
        let mut looked_at = None;
        let answer = poll_fn(|cx| {
            let answer = match &mut looked_at {
                None if wire.poll_read(cx).is_ready() => {
                    // At this time a replica can only have closed the connection.
                    return Poll::Ready(Err(SendError::Unsent));
                }
                None => {
                    looked_at = Some(Looked::default());
                    wire.begin(cx, request)
                }
                Some(looked_at) => wire.poll_head(cx, request.method(), looked_at),
            };
            match answer {
                Poll::Ready(answer) => {
                    Poll::Ready(answer.map_err(|error| SendError::Broken { error, answering: wire.answering }))
                }
                Poll::Pending if is_late(alarm, cx, &mut extend) => Poll::Ready(Err(SendError::TimedOut)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match answer {
            Err(SendError::Broken { .. }) if !wire.outgoing.begun => {
                if let Some(body) = wire.outgoing.take_back() {
                    *request.body_mut() = body;
                }
                Err(SendError::Unsent)
            }
            answer => answer,
        }
    }

    /// The next piece of the body of the answer.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        self.wire.poll_frame(cx).map(Result::transpose)
    }

    /// Whether the body of the answer has ended.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.wire.body == Decoder::Done
    }

    /// What is known about the remaining length of the answer's body.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.wire.body.size_hint()
    }

    /// Reuses the headers of a finished request for those of the next answer.
    pub(crate) fn reuse(&mut self, mut headers: HeaderMap) {
        headers.clear();
        self.wire.spare = headers;
    }

    /// The connection for the next request, if it can be used again.
    pub(crate) fn again(mut self) -> Option<Self> {
        let wire = &mut *self.wire;
        let done = wire.body == Decoder::Done && wire.outgoing.is_done();
        // Data after an answer belongs to no request.
        if !done || !wire.stays || !wire.input.is_empty() {
            return None;
        }
        wire.outgoing.rest();
        // The buffer may be larger than recent reads need. `capacity` covers only its remaining part.
        if std::mem::take(&mut wire.grown) {
            (wire.read, wire.input) = (READ, BytesMut::new());
        }
        Some(self)
    }
}

impl Wire {
    /// Sends as much of a request as possible at once. A moment ago the socket had nothing to read.
    fn begin(&mut self, cx: &mut Context<'_>, request: &mut Request<SendBody>) -> Poll<Result<Response<()>, String>> {
        self.outgoing.begin(request);
        (self.stays, self.answering) = (false, false);
        match self.outgoing.poll(&mut self.socket, cx) {
            Poll::Ready(Err(error)) => self.poll_late(cx, request.method(), error),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Sends the rest of the request, and reads until the header of the answer is complete.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        looked_at: &mut Looked,
    ) -> Poll<Result<Response<()>, String>> {
        match self.outgoing.poll(&mut self.socket, cx) {
            Poll::Ready(Err(error)) => self.poll_late(cx, method, error),
            Poll::Ready(Ok(())) | Poll::Pending => self.poll_answer(cx, method, looked_at),
        }
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        looked_at: &mut Looked,
    ) -> Poll<Result<Response<()>, String>> {
        loop {
            match ready!(self.poll_read(cx)) {
                Ok(0) => return Poll::Ready(Err("it closed the connection".to_owned())),
                Ok(_) => self.answering = true,
                Err(error) => return Poll::Ready(Err(error.to_string())),
            }
            if let Some(head) = answer::take(&mut self.input, looked_at, method, &mut self.spare)? {
                self.body = head.body;
                self.stays = head.stays;
                return Poll::Ready(Ok(head.response));
            }
        }
    }

    /// The request cannot be sent completely. The replica may have answered before it closed.
    fn poll_late(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        error: io::Error,
    ) -> Poll<Result<Response<()>, String>> {
        let answer =
            if self.outgoing.begun { self.poll_answer(cx, method, &mut Looked::default()) } else { Poll::Pending };
        match answer {
            Poll::Ready(Ok(response)) => {
                (self.outgoing, self.stays) = (Outgoing::new(), false);
                Poll::Ready(Ok(response))
            }
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(Err(error.to_string())),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, String>> {
        if !self.outgoing.is_done()
            && let Poll::Ready(Err(_)) = self.outgoing.poll(&mut self.socket, cx)
        {
            // The answer is still used.
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
            self.grown = true;
        } else if count < self.read / 4 {
            self.read = (self.read / 2).max(READ);
        }
        Poll::Ready(Ok(count))
    }
}
