//! Counts the bytes of a message against the memory for bodies while it is read.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::Status;

use crate::budget::{Budget, Hold};

/// A body that stops with an error once there is no memory for it.
pub(super) struct Metered {
    body: Incoming,
    budget: Budget,
    read: usize,
    hold: Arc<Mutex<Hold>>,
}

/// Wraps the body of a request. What it takes is kept until the other half is dropped.
pub(super) fn meter(request: Request<Incoming>, budget: &Budget) -> (Request<Metered>, Arc<Mutex<Hold>>) {
    let hold = Arc::new(Mutex::new(Hold::default()));
    let metered = |body| Metered { body, budget: budget.clone(), read: 0, hold: Arc::clone(&hold) };
    (request.map(metered), hold)
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|error| Status::cancelled(format!("the message broke off: {error}")))?;
            if let Some(data) = frame.data_ref() {
                this.read = this.read.saturating_add(data.len());
                let mut hold = this.hold.lock().unwrap_or_else(PoisonError::into_inner);
                this.budget
                    .cover(&mut hold, this.read)
                    .map_err(|spent| Status::resource_exhausted(spent.to_string()))?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
