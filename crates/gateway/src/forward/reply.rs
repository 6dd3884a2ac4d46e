//! Bodies of answers to a client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use base::error::chain;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::flight::Flight;
use crate::{
    upstream::{http1::Link, http2::Grpc, place::Place},
    wire::{alarm::Alarm, grpc, refusal::Refusal},
};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body that is no replica's and goes on for as long as its client likes.
pub(crate) type BoxBody = UnsyncBoxBody<Bytes, BoxError>;
type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The body of an answer to a client.
#[derive(Debug)]
pub(crate) enum OutBody {
    /// A text of the gateway.
    Own(Option<Bytes>),
    /// A gRPC message of the gateway, and its trailers.
    Message(Option<Bytes>, Option<Box<HeaderMap>>),
    /// A body from a replica.
    Replica(ReplicaBody),
}

impl OutBody {
    /// This text.
    pub(crate) fn own(words: impl Into<Bytes>) -> Self {
        Self::Own(Some(words.into()).filter(|bytes| !bytes.is_empty()))
    }

    /// A gRPC answer: one message, or none.
    pub(crate) fn grpc(message: Option<&[u8]>) -> Response<Self> {
        grpc::response(Self::Message(message.map(grpc::frame), Some(Box::new(grpc::all_well()))))
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
            Self::Replica(body) => body.source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Message(..) => SizeHint::default(),
            Self::Replica(body) => body.source.size_hint(),
        }
    }
}

/// The source of a replica's answer.
#[derive(Debug)]
pub(crate) enum Source {
    /// A connection of its own.
    Http1(Link),
    /// `_place` is its place among the calls of the connection; kept only to be dropped at the end.
    Http2 { incoming: Incoming, _place: Place },
    /// A separate HTTP/2 connection.
    Stream { incoming: Incoming, grpc: Grpc },
    /// Nothing more comes.
    Ended,
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        match self {
            Self::Http1(link) => link.poll_frame(cx).map(|it| it.map(|it| it.map_err(Into::into))),
            Self::Http2 { incoming, .. } | Self::Stream { incoming, .. } => {
                Pin::new(incoming).poll_frame(cx).map(|it| it.map(|it| it.map_err(Into::into)))
            }
            Self::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(link) => link.is_end_stream(),
            Self::Http2 { incoming, .. } | Self::Stream { incoming, .. } => incoming.is_end_stream(),
            Self::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(link) => link.size_hint(),
            Self::Http2 { incoming, .. } | Self::Stream { incoming, .. } => incoming.size_hint(),
            Self::Ended => SizeHint::with_exact(0),
        }
    }
}

/// The answer of a replica. Reading it drives its connection; at its end the connection returns to the pool and the
/// request is over.
#[derive(Debug)]
pub(crate) struct ReplicaBody {
    source: Source,
    /// `None` after the end.
    flight: Option<Box<Flight>>,
    alarm: Option<Alarm>,
    idle: Duration,
    /// Whether data arrived since the alarm was set.
    moved: bool,
}

impl ReplicaBody {
    /// `idle` limits the wait for each next piece.
    pub(crate) fn new(source: Source, flight: Box<Flight>, alarm: Alarm, idle: Duration) -> Self {
        let mut body = Self { source, flight: Some(flight), alarm: Some(alarm), idle, moved: true };
        if body.source.is_end_stream() {
            body.finish();
        }
        body
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        match self.source.poll(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(flight), Some(data)) = (&mut self.flight, frame.data_ref()) {
                    flight.saw_output(data);
                } else if let (Some(flight), Some(trailers)) = (&mut self.flight, frame.trailers_ref()) {
                    flight.saw_trailers(trailers);
                }
                if self.source.is_end_stream() {
                    self.finish();
                }
                self.moved = true;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let error = chain(&*error);
                let words = format!("broke the connection within its answer ({error}); the request is not sent again");
                self.fail(StatusCode::BAD_GATEWAY, &words, Some(&error))
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
                let words = format!("sent nothing more of its answer for {} ms", self.idle.as_millis());
                self.fail(StatusCode::GATEWAY_TIMEOUT, &words, None)
            }
        }
    }

    /// The replica stopped within its answer; `error`: its connection broke. A gRPC call ends with a status that says
    /// so, unless its length was announced.
    fn fail(&mut self, status: StatusCode, how: &str, error: Option<&str>) -> Polled {
        let is_grpc = matches!(self.source, Source::Http2 { .. } | Source::Stream { .. });
        let says_so = is_grpc && self.source.size_hint().exact().is_none();
        self.source = Source::Ended;
        let mut words = format!("the replica {how}");
        if let Some(mut flight) = self.flight.take() {
            flight.broke_off(error);
            words = format!("{} {how}", flight.claim.0.id);
            if says_so {
                flight.code = status.as_u16();
            }
        }
        Poll::Ready(Some(if says_so {
            Ok(Frame::trailers(grpc::trailers(&Refusal::new(status, words))))
        } else {
            Err(words.into())
        }))
    }

    fn finish(&mut self) {
        let Some(mut flight) = self.flight.take() else { return };
        flight.whole = true;
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Http1(link) => {
                if let Some(link) = link.again() {
                    flight.keep(link);
                }
            }
            Source::Stream { grpc, .. } => flight.keep_stream(grpc),
            Source::Http2 { .. } | Source::Ended => {}
        }
    }
}

impl OutBody {
    /// The rest of it is not sent; what is recorded of the request is `status`.
    pub(crate) fn gave_up(&mut self, status: StatusCode) {
        if let Self::Replica(body) = self
            && let Some(flight) = &mut body.flight
        {
            flight.code = status.as_u16();
        }
    }

    /// The timer, once the answer is over.
    pub(crate) fn take_alarm(&mut self) -> Option<Alarm> {
        match self {
            Self::Replica(body) if body.flight.is_none() => body.alarm.take(),
            Self::Own(_) | Self::Message(..) | Self::Replica(_) => None,
        }
    }
}
