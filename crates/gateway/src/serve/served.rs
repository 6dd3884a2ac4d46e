//! An answer's body as a connection sends it. Its end is the end of the request.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::connection::Busy;
use crate::forward::reply::OutBody;

/// An answer's body, and the mark of its connection that a request is being answered.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) body: OutBody,
    pub(crate) busy: Busy,
}

impl Body for Served {
    type Data = Bytes;
    type Error = <OutBody as Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(alarm) = self.body.take_alarm() {
            self.busy.keep_alarm(alarm);
        }
    }
}
