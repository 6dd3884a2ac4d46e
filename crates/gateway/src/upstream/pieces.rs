//! Joins the small frames of a client's body. A replica treats thousands of them as an attack and closes the
//! connection, which other requests share.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use hyper::body::Incoming;

/// Frames below this length are joined with those that follow.
const SMALL: usize = 4 << 10;

/// Small frames that wait for more.
#[derive(Debug, Default)]
pub(super) struct Pieces(BytesMut);

impl Pieces {
    /// The next piece of a body: [`SMALL`] bytes or more, or the last one. `None` at the end. Frames without data and
    /// trailers are left out. `came` gets the length of each frame.
    pub(super) fn poll(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
        mut came: impl FnMut(usize),
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            let data = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // The end is returned again.
                None => return Poll::Ready(self.take().map(Ok)),
            };
            came(data.len());
            if self.0.is_empty() && data.len() >= SMALL {
                return Poll::Ready(Some(Ok(data)));
            }
            self.0.extend_from_slice(&data);
            if self.0.len() >= SMALL {
                return Poll::Ready(self.take().map(Ok));
            }
        }
    }

    /// The waiting data, if any.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        Some(self.0.split().freeze()).filter(|bytes| !bytes.is_empty())
    }
}
