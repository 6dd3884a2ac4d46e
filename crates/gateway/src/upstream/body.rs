//! Bodies of requests on their way to a replica, and why one got no answer.

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

/// Why a request got no answer, by what may be done about it.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Nothing of it was sent: it can go elsewhere.
    Unsent,
    /// The replica says that it takes nothing of it.
    TurnedAway,
    /// The replica ends the connection, and says that it takes nothing of this request on it.
    Closing,
    /// The connection died after something was sent, or what came on it cannot be read.
    Broken {
        error: String,
        /// Whether a part of an answer had come.
        answering: bool,
    },
    /// The replica gave up this one request; the connection lives.
    Reset(String),
    /// The time was up.
    TimedOut,
}

/// Whether the time is up, and `extend` knows no reason to wait on.
pub(super) fn is_late(alarm: &mut Alarm, cx: &mut Context<'_>, mut extend: impl FnMut(&mut Alarm) -> bool) -> bool {
    while alarm.poll(cx).is_ready() {
        if !extend(alarm) {
            return true;
        }
    }
    false
}

/// A request's body, on its way to a replica.
#[derive(Debug)]
pub(crate) enum SendBody {
    /// All of it; `None` once sent, or where there is none.
    Held(Option<Bytes>),
    /// As it comes.
    Stream(Box<StreamBody>),
    /// The messages for one model of a stream for several, and the place of the call that sends them.
    Part(Part, Option<Place>),
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

/// What a streamed body came to; shared with whoever waits for the answer.
#[derive(Debug, Default)]
pub(crate) struct StreamProgress {
    /// Bytes that came so far.
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
    /// The client sends too slowly.
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
    head: Option<Bytes>,
    /// What comes.
    rest: Incoming,
    pieces: Pieces,
    /// Bytes that `rest` may still bring.
    allowed: u64,
    /// How slowly `rest` may come.
    pace: Pace,
    /// Goes off when `rest` came too slowly.
    alarm: Alarm,
    /// What came of it.
    progress: Arc<StreamProgress>,
}

impl StreamBody {
    /// What was read already and what comes, which is at most `allowed` bytes long.
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

    /// What comes of it, also for whoever waits for the answer.
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
        // A replica has no use for a part of a request, so pieces may wait for more.
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
