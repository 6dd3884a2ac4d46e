//! Bodies: of requests on their way to a replica, and of answers on their way to a client.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{alarm::Alarm, flight::Flight, upstream::Link};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// A request's body, on its way to a replica.
#[derive(Debug)]
pub(crate) enum SendBody {
    /// All of it; `None` once sent, or where there is none.
    Held(Option<Bytes>),
    /// As it comes.
    Stream(Box<StreamBody>),
}

impl SendBody {
    /// This one.
    pub(crate) fn held(bytes: Bytes) -> Self {
        Self::Held(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.get_mut() {
            Self::Held(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Held(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// What a streamed body came to; shared with whoever waits for the answer.
#[derive(Debug, Default)]
pub(crate) struct StreamProgress {
    /// Bytes handed on so far.
    pub(crate) bytes: AtomicU64,
    state: AtomicU8,
}

/// How a streamed body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StreamState {
    /// More may come.
    Open = 0,
    /// All of it was handed on.
    Done = 1,
    /// It is longer than allowed.
    TooLong = 2,
    /// The client stopped sending.
    Stalled = 3,
    /// The client went away.
    Broken = 4,
}

impl StreamProgress {
    pub(crate) fn state(&self) -> StreamState {
        match self.state.load(Ordering::Acquire) {
            0 => StreamState::Open,
            1 => StreamState::Done,
            2 => StreamState::TooLong,
            3 => StreamState::Stalled,
            _ => StreamState::Broken,
        }
    }

    fn set(&self, state: StreamState) {
        self.state.store(state as u8, Ordering::Release);
    }
}

/// A request's body that is handed on as it comes.
#[derive(Debug)]
pub(crate) struct StreamBody {
    /// What was read already.
    pub(crate) head: Option<Bytes>,
    /// What comes.
    pub(crate) rest: Incoming,
    /// Bytes that `rest` may still bring.
    pub(crate) allowed: u64,
    /// Between two pieces.
    pub(crate) idle: Duration,
    /// Counts `idle`.
    pub(crate) alarm: Alarm,
    /// What came of it.
    pub(crate) progress: Arc<StreamProgress>,
}

impl StreamBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(head) = self.head.take() {
            self.progress.bytes.fetch_add(head.len() as u64, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        match Pin::new(&mut self.rest).poll_frame(cx) {
            Poll::Pending => {
                ready!(self.alarm.poll(cx));
                self.fail(StreamState::Stalled, "the client stopped sending")
            }
            Poll::Ready(None) => {
                self.progress.set(StreamState::Done);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => self.fail(StreamState::Broken, &error.to_string()),
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(allowed) = self.allowed.checked_sub(length) else {
                    return self.fail(StreamState::TooLong, "the body is too long");
                };
                self.allowed = allowed;
                self.alarm.set_after(self.idle);
                self.progress.bytes.fetch_add(length, Ordering::Relaxed);
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn fail(&self, state: StreamState, words: &str) -> Polled {
        self.progress.set(state);
        Poll::Ready(Some(Err(words.into())))
    }
}

/// An answer's body, on its way to a client.
#[derive(Debug)]
pub(crate) enum OutBody {
    /// The gateway's own words.
    Own(Option<Bytes>),
    /// The gateway's own gRPC message, and the trailers that end it.
    Message(Option<Bytes>, Option<Box<HeaderMap>>),
    /// A replica's.
    Replica(ReplicaBody),
}

impl OutBody {
    /// These words.
    pub(crate) fn own(words: impl Into<Bytes>) -> Self {
        Self::Own(Some(words.into()).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Message(message, trailers) => {
                let message = message.take().map(Frame::data);
                Poll::Ready(message.or_else(|| trailers.take().map(|trailers| Frame::trailers(*trailers))).map(Ok))
            }
            Self::Replica(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Message(message, trailers) => message.is_none() && trailers.is_none(),
            Self::Replica(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Message(..) => SizeHint::default(),
            Self::Replica(body) => body.incoming.size_hint(),
        }
    }
}

/// A replica's answer. Reading it drives the connection that it comes on; at its end the connection goes back to
/// the pool and the request is over.
#[derive(Debug)]
pub(crate) struct ReplicaBody {
    incoming: Incoming,
    /// The HTTP/1 connection; `None` with HTTP/2 and after the end.
    link: Option<Link>,
    /// `None` after the end.
    flight: Option<Box<Flight>>,
    alarm: Option<Alarm>,
    idle: Duration,
    /// Whether something came since the alarm was set.
    moved: bool,
}

impl ReplicaBody {
    /// `idle` bounds the wait for each next piece.
    pub(crate) fn new(
        incoming: Incoming,
        link: Option<Link>,
        flight: Box<Flight>,
        alarm: Alarm,
        idle: Duration,
    ) -> Self {
        let mut body = Self { incoming, link, flight: Some(flight), alarm: Some(alarm), idle, moved: true };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        let mut polled = self.poll_incoming(cx);
        if polled.is_pending()
            && let Some(link) = &mut self.link
        {
            link.drive(cx);
            polled = self.poll_incoming(cx);
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(flight), Some(data)) = (&mut self.flight, frame.data_ref()) {
                    flight.saw_output(data);
                } else if let (Some(flight), Some(trailers)) = (&mut self.flight, frame.trailers_ref()) {
                    flight.saw_trailers(trailers);
                }
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                self.moved = true;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.fail();
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(alarm) = &mut self.alarm else { return Poll::Pending };
                if std::mem::take(&mut self.moved) {
                    alarm.set_after(self.idle);
                }
                ready!(alarm.poll(cx));
                self.fail();
                Poll::Ready(Some(Err("the replica stopped sending".into())))
            }
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut quiet = Context::from_waker(Waker::noop());
        // With a connection of our own only its socket has anything to wake us for.
        let cx = if self.link.is_some() { &mut quiet } else { cx };
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn fail(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.broke_off();
        }
        self.link = None;
        self.flight = None;
    }

    fn finish(&mut self) {
        let Some(mut flight) = self.flight.take() else { return };
        if let Some(alarm) = self.alarm.take() {
            flight.busy.keep_alarm(alarm);
        }
        flight.whole = true;
        if let Some(mut link) = self.link.take() {
            if !link.is_ready() {
                link.drive(&mut Context::from_waker(Waker::noop()));
            }
            if link.is_ready() {
                flight.keep(link);
            }
        }
    }
}

impl Drop for ReplicaBody {
    fn drop(&mut self) {
        // The answer to HEAD has a body that nobody reads.
        if self.incoming.is_end_stream() {
            self.finish();
        }
    }
}
