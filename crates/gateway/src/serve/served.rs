//! The body of an answer as a connection sends it. Its end is the end of the request.

use std::{
    mem,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
};

use base::serve::{taking, untaken};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{connection::Busy, merged::Merged};
use crate::{
    forward::reply::{BoxBody, BoxError, OutBody},
    wire::{alarm::Alarm, grpc, refusal::Refusal},
};

/// The size of a piece for hyper over HTTP/2: it holds one for each call whose client has no room for it.
const PIECE: usize = 64 << 10;

/// An answer's body.
#[derive(Debug)]
pub(crate) enum Answer {
    /// From one replica, or from the gateway itself.
    One(OutBody),
    /// From a service of the gateway, for as long as the client wants.
    Open(BoxBody),
    /// From the models of a stream.
    Merged(Box<Merged>),
}

/// The body of an answer, and the mark that a request is in flight on its connection.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) body: Answer,
    busy: Busy,
    /// The rest of a large piece.
    rest: Bytes,
    /// Goes off when the caller's own time for the call is up.
    until: Option<Box<Alarm>>,
}

impl Served {
    /// `until` is when the caller's own time for the call is up.
    pub(crate) fn new(body: Answer, busy: Busy, until: Option<Instant>) -> Self {
        let until = until.map(|until| Box::new(Alarm::new(until)));
        Self { body, busy, rest: Bytes::new(), until }
    }

    /// The next frame of the answer, or the status that ends it when the caller's time is up.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = match &mut self.body {
            Answer::One(body) => Pin::new(body).poll_frame(cx),
            Answer::Open(body) => Pin::new(body).poll_frame(cx),
            Answer::Merged(merged) => merged.poll(cx),
        };
        let (Poll::Pending, Some(alarm)) = (&polled, &mut self.until) else { return polled };
        ready!(alarm.poll(cx));
        self.until = None;
        let late = Refusal::late();
        match &mut self.body {
            Answer::One(body) => body.gave_up(late.status),
            Answer::Merged(merged) => merged.gave_up(late.status),
            Answer::Open(_) => {}
        }
        let is_announced = self.size_hint().exact().is_some();
        self.body = Answer::One(OutBody::Own(None));
        Poll::Ready(Some(if is_announced {
            Err(late.words.into())
        } else {
            Ok(Frame::trailers(grpc::trailers(&late)))
        }))
    }
}

impl Body for Served {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        taking::asked();
        let mut frame = if self.rest.is_empty() {
            match ready!(self.poll_body(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            }
        } else {
            Frame::data(mem::take(&mut self.rest))
        };
        if let Some(data) = frame.data_mut() {
            if self.busy.http2.load(Ordering::Relaxed) && !data.is_empty() {
                let rest = data.split_off(data.len().min(PIECE));
                *data = untaken::counted(mem::take(data), &self.busy.held);
                self.rest = rest;
            }
            taking::gave();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.body {
                Answer::One(body) => body.is_end_stream(),
                Answer::Open(body) => body.is_end_stream(),
                Answer::Merged(merged) => merged.is_over(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Answer::One(body) => body.size_hint(),
            Answer::Open(_) | Answer::Merged(_) => SizeHint::default(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Answer::One(body) = &mut self.body
            && let Some(alarm) = body.take_alarm()
        {
            self.busy.keep_alarm(alarm);
        }
    }
}
