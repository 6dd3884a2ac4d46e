//! An answer's body as a connection sends it. Its end is the end of the request.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{connection::Busy, merged::Merged};
use crate::forward::reply::OutBody;

/// An answer's body.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Of one replica, or of the gateway itself.
    One(OutBody),
    /// Of the models of a stream.
    Merged(Box<Merged>),
}

/// An answer's body, and the mark of its connection that a request is being answered.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) body: Answer,
    pub(crate) busy: Busy,
}

impl Body for Served {
    type Data = Bytes;
    type Error = <OutBody as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.body {
            Answer::One(body) => Pin::new(body).poll_frame(cx),
            Answer::Merged(merged) => merged.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Answer::One(body) => body.is_end_stream(),
            Answer::Merged(merged) => merged.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Answer::One(body) => body.size_hint(),
            Answer::Merged(_) => SizeHint::default(),
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
