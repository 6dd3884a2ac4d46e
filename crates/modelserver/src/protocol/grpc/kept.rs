//! Counts the bytes of answers against the memory for bodies until the client has taken them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::{Status, body::Body as GrpcBody};

use crate::protocol::budget::Budget;

/// The body of an answer. It ends with a status once there is no memory for its next message.
pub(super) struct Kept {
    body: GrpcBody,
    budget: Budget,
    ended: bool,
}

impl Kept {
    pub(super) fn body(body: GrpcBody, budget: &Budget) -> GrpcBody {
        GrpcBody::new(Self { body, budget: budget.clone(), ended: false })
    }

    fn kept(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Status> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(other) => return Ok(other),
        };
        self.budget.keep(data).map(Frame::data).or_else(|spent| {
            self.ended = true;
            let mut trailers = HeaderMap::new();
            Status::resource_exhausted(spent.to_string()).add_header(&mut trailers)?;
            Ok(Frame::trailers(trailers))
        })
    }
}

impl Body for Kept {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| this.kept(frame?)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}
