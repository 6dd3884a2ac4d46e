//! Counts the bytes of messages against the memory for bodies while they are read.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::budget::{Budget, Hold};

/// A body that stops with an error once there is no memory for it.
pub(super) struct Metered {
    body: Incoming,
    budget: Budget,
    meter: Meter,
    pauses: Option<Pauses>,
}

/// How long a message may stop in its middle.
struct Pauses {
    longest: Duration,
    until: Pin<Box<Sleep>>,
}

/// What the messages of one body hold. Clones are the same; the last one gives back what is left.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter(Arc<Mutex<Read>>);

#[derive(Debug, Default)]
struct Read {
    bytes: usize,
    hold: Hold,
}

impl Meter {
    /// What was read up to now, which is that of the message that was just complete. Counting begins again.
    pub(super) fn take(&self) -> Hold {
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *read).hold
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes == 0
    }

    fn count(&self, bytes: usize, budget: &Budget) -> Result<(), Status> {
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        read.bytes = read.bytes.saturating_add(bytes);
        let size = read.bytes;
        budget.cover(&mut read.hold, size).map_err(|spent| Status::resource_exhausted(spent.to_string()))
    }
}

/// Wraps the body of a request. What it takes is kept until the meter is dropped or gives it away.
pub(super) fn meter(request: Request<Incoming>, budget: &Budget) -> (Request<Metered>, Meter) {
    let meter = Meter::default();
    let metered = |body| Metered { body, budget: budget.clone(), meter: meter.clone(), pauses: None };
    (request.map(metered), meter)
}

impl Metered {
    /// Lets the body stop for as long as it likes between messages, and for `longest` within one.
    pub(super) fn allow_pauses_of(&mut self, longest: Duration) {
        self.pauses = Some(Pauses { longest, until: Box::pin(tokio::time::sleep(longest)) });
    }

    /// Whether a message stopped for too long.
    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let Some(pauses) = &mut self.pauses else { return Poll::Pending };
        if self.meter.is_empty() {
            return Poll::Pending;
        }
        std::task::ready!(pauses.until.as_mut().poll(context));
        let words = format!("the message stopped for {} ms (serve.body_timeout_ms)", pauses.longest.as_millis());
        Poll::Ready(Status::deadline_exceeded(words))
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            return this.poll_pause(context).map(|status| Some(Err(status)));
        };
        if let Some(pauses) = &mut this.pauses {
            pauses.until.as_mut().reset(Instant::now() + pauses.longest);
        }
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|error| Status::cancelled(format!("the message broke off: {error}")))?;
            if let Some(data) = frame.data_ref() {
                this.meter.count(data.len(), &this.budget)?;
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
