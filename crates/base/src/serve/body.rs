//! The body of an answer, which reports its progress to the watch of the connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{taking, untaken, watch::Watch};

/// A request until its answer has been passed to the connection.
#[derive(Debug)]
pub(super) struct InFlight {
    watch: Arc<Watch>,
    idle: Duration,
    is_one_too_many: bool,
}

impl InFlight {
    pub(super) fn new(watch: Arc<Watch>, version: http::Version, idle: Duration) -> Self {
        let is_one_too_many = !watch.begin(version);
        Self { watch, idle, is_one_too_many }
    }

    /// Whether all connections together have too many calls.
    pub(super) fn is_one_too_many(&self) -> bool {
        self.is_one_too_many
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.watch.end(self.idle);
    }
}

/// The size of the pieces, so that a client's progress through a large answer is visible. Over HTTP/2 many calls share
/// the connection, and hyper keeps a piece of each.
const SLICE: usize = 512 << 10;
const SLICE_OF_CALL: usize = 128 << 10;

/// An empty event, to test whether a client is still connected.
const COMMENT: &[u8] = b":\n\n";

/// A body that is polled for pieces as the client reads them.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: B,
    /// The rest of a large piece.
    rest: Bytes,
    request: InFlight,
    /// The client has to read next. Over HTTP/2, [`taking`] tracks this.
    owed: bool,
    /// Only the length is sent: it answers `HEAD`. hyper omits bodies itself over HTTP/1, but not over HTTP/2.
    bare: bool,
}

impl<B: Body<Data = Bytes>> Watched<B> {
    pub(super) fn new(body: B, request: InFlight, bare: bool) -> Self {
        let mut watched = Self { body, rest: Bytes::new(), request, owed: false, bare };
        watched.set_owed(!bare && !watched.body.is_end_stream());
        watched
    }
}

impl<B> Watched<B> {
    fn set_owed(&mut self, owed: bool) {
        if self.owed != owed && !self.request.watch.is_http2() {
            self.owed = owed;
            self.request.watch.owe(owed);
        }
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        self.set_owed(false);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        // The model produces the next piece, and then the client has to read it.
        this.set_owed(false);
        taking::asked();
        let mut data = std::mem::take(&mut this.rest);
        if data.is_empty() {
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending if this.request.watch.take_ask_of_events() => {
                    return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(frame)) => frame,
            };
            match frame?.into_data() {
                Ok(piece) => data = piece,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let is_http2 = this.request.watch.is_http2();
        let slice = if is_http2 { SLICE_OF_CALL } else { SLICE };
        if data.len() > slice {
            this.rest = data.split_off(slice);
        }
        if is_http2 && !data.is_empty() {
            data = untaken::counted(data, this.request.watch.held());
        }
        this.set_owed(true);
        taking::gave();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.bare || self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Called before the first piece; afterwards nobody needs it.
        self.body.size_hint()
    }
}
