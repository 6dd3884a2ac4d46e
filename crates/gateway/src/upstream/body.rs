//! Request bodies that are sent to a replica, and why a request got no answer.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{pieces::Pieces, place::Place, split::Part};
use crate::wire::{alarm::Alarm, pace::Pace};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Why a request got no answer, grouped by what may be done about it.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Nothing of it was sent: another replica can get it.
    Unsent,
    /// The replica says that it processed nothing of it.
    TurnedAway,
    /// The replica closes the connection, and says that it processed nothing of this request.
    Closing,
    /// The connection broke after something was sent, or the answer is malformed.
    Broken {
        error: String,
        /// Whether a part of an answer had arrived.
        answering: bool,
    },
    /// The replica cancelled this request; the connection still works.
    Reset(String),
    /// The time is up.
    TimedOut,
}

/// Whether the time is up, and `extend` gives no reason to continue.
pub(super) fn is_late(alarm: &mut Alarm, cx: &mut Context<'_>, mut extend: impl FnMut(&mut Alarm) -> bool) -> bool {
    while alarm.poll(cx).is_ready() {
        if !extend(alarm) {
            return true;
        }
    }
    false
}

/// A request body that is sent to a replica.
#[derive(Debug)]
pub(crate) enum SendBody {
    /// The whole body; `None` once sent, or if there is none.
    Held(Option<Bytes>),
    /// Forwarded while it arrives.
    Stream(Box<StreamBody>),
    /// The messages for one model of a stream for several, and the place of the call that sends them.
    Part(Part, Option<Place>),
}

impl SendBody {
    /// This body.
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
            Self::Part(part, _) => part.poll(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Held(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) | Self::Part(..) => SizeHint::default(),
        }
    }
}

/// The progress of a streamed body; shared with the code that waits for the answer.
#[derive(Debug, Default)]
pub(crate) struct StreamProgress {
    /// Bytes that have arrived.
    pub(crate) bytes: AtomicU64,
    state: AtomicU8,
}

/// The state of a streamed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StreamState {
    /// More may come.
    Open = 0,
    /// All of it was forwarded.
    Done = 1,
    /// It is longer than allowed.
    TooLong = 2,
    /// The client sends too slowly.
    Stalled = 3,
    /// The client disconnected.
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

/// A request body that is forwarded while it arrives.
#[derive(Debug)]
pub(crate) struct StreamBody {
    /// The part that was already read.
    head: Option<Bytes>,
    /// The rest.
    rest: Incoming,
    pieces: Pieces,
    /// How many bytes `rest` may still have.
    allowed: u64,
    /// The minimum rate of `rest`.
    pace: Pace,
    /// Fires when `rest` arrives too slowly.
    alarm: Alarm,
    /// Its progress.
    progress: Arc<StreamProgress>,
}

impl StreamBody {
    /// A body from the part that was read and the rest, which has at most `allowed` bytes.
    pub(crate) fn new(head: Bytes, rest: Incoming, allowed: u64, pace: Pace) -> Self {
        Self {
            head: Some(head).filter(|head| !head.is_empty()),
            rest,
            pieces: Pieces::default(),
            allowed,
            pace,
            alarm: Alarm::new(Instant::now()),
            progress: Arc::default(),
        }
    }

    /// Its progress, also for the code that waits for the answer.
    pub(crate) fn progress(&self) -> Arc<StreamProgress> {
        Arc::clone(&self.progress)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(head) = self.head.take() {
            self.progress.bytes.fetch_add(head.len() as u64, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        let (pace, progress, allowed) = (&mut self.pace, &self.progress, &mut self.allowed);
        let mut is_too_long = false;
        // A replica cannot use a part of a request, so pieces may wait for more.
        let polled = self.pieces.poll(&mut self.rest, cx, |length| {
            pace.came(length);
            progress.bytes.fetch_add(length as u64, Ordering::Relaxed);
            is_too_long |= length as u64 > *allowed;
            *allowed = allowed.saturating_sub(length as u64);
        });
        if is_too_long {
            return self.fail(StreamState::TooLong, "the body is too long");
        }
        match polled {
            Poll::Pending => {
                self.alarm.set(self.pace.wait());
                ready!(self.alarm.poll(cx));
                self.fail(StreamState::Stalled, "the client sends too slowly")
            }
            Poll::Ready(None) => {
                self.progress.set(StreamState::Done);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => self.fail(StreamState::Broken, &error.to_string()),
            Poll::Ready(Some(Ok(piece))) => Poll::Ready(Some(Ok(Frame::data(piece)))),
        }
    }

    fn fail(&self, state: StreamState, words: &str) -> Polled {
        self.progress.set(state);
        Poll::Ready(Some(Err(words.into())))
    }
}
