//! Counts the bytes of messages against the memory for bodies while they are read. A message that comes slowly gives way
//! to others, as every body does.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::protocol::budget::{Arriving, Budget, Hold, Refused};

/// A body that stops with an error once there is no memory for it.
pub(super) struct Metered {
    body: Incoming,
    meter: Meter,
    pauses: Option<Pauses>,
}

/// How long a message may take.
struct Pauses {
    /// How long it may stop in its middle.
    longest: Duration,
    /// How long it may take as a whole.
    whole: Duration,
    /// When the message that is being read must be complete.
    end: Option<Instant>,
    /// When one of the two is over.
    until: Pin<Box<Sleep>>,
}

/// What the messages of one body hold. Clones are the same; the last one gives back what is left.
#[derive(Clone, Debug)]
pub(super) struct Meter(Arc<Mutex<Read>>);

#[derive(Debug)]
struct Read {
    bytes: usize,
    arriving: Arriving,
    /// What the last message has taken, once the body has ended.
    whole: Hold,
    broke_off: bool,
}

impl Meter {
    fn new(budget: &Budget) -> Self {
        let arriving = budget.arriving_owned();
        Self(Arc::new(Mutex::new(Read { bytes: 0, arriving, whole: Hold::default(), broke_off: false })))
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read up to now, which is that of the message that was just complete. Counting begins again.
    pub(super) fn take(&self) -> Result<Hold, Refused> {
        let mut read = self.read();
        read.bytes = 0;
        read.arriving.complete()
    }

    /// The body has ended: what came of it is slow no more.
    fn end(&self) -> Result<(), Refused> {
        let mut read = self.read();
        if read.bytes > 0 {
            read.bytes = 0;
            read.whole = read.arriving.complete()?;
        }
        Ok(())
    }

    /// Whether the client left before the body ended.
    pub(super) fn broke_off(&self) -> bool {
        self.read().broke_off
    }

    fn is_empty(&self) -> bool {
        self.read().bytes == 0
    }

    fn count(&self, bytes: usize) -> Result<(), Refused> {
        let mut read = self.read();
        read.bytes = read.bytes.saturating_add(bytes);
        let size = read.bytes;
        read.arriving.cover(size)
    }
}

/// Wraps the body of a request. What it takes is kept until the meter is dropped or gives it away.
pub(super) fn meter(request: Request<Incoming>, budget: &Budget) -> (Request<Metered>, Meter) {
    let meter = Meter::new(budget);
    let metered = |body| Metered { body, meter: meter.clone(), pauses: None };
    (request.map(metered), meter)
}

impl Metered {
    /// Lets the body stop for as long as it likes between messages. Within one it may stop for `longest`, and a message
    /// may take no longer than `whole`.
    pub(super) fn limit_messages(&mut self, longest: Duration, whole: Duration) {
        self.pauses = Some(Pauses { longest, whole, end: None, until: Box::pin(tokio::time::sleep(longest)) });
    }

    /// Counts bytes that a message has become.
    pub(super) fn count(&self, bytes: usize) -> Result<(), Status> {
        self.meter.count(bytes).map_err(Status::from)
    }

    /// Whether a message stopped for too long.
    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let Some(pauses) = &mut self.pauses else { return Poll::Pending };
        if self.meter.is_empty() {
            return Poll::Pending;
        }
        std::task::ready!(pauses.until.as_mut().poll(context));
        let words = if pauses.end.is_some_and(|end| end <= Instant::now()) {
            format!("the message took longer than {} ms (serve.request_timeout_ms)", pauses.whole.as_millis())
        } else {
            format!("the message stopped for {} ms (serve.body_timeout_ms)", pauses.longest.as_millis())
        };
        Poll::Ready(Status::deadline_exceeded(words))
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            if let Poll::Ready(refused) = this.meter.read().arriving.poll_refused(context) {
                return Poll::Ready(Some(Err(refused.into())));
            }
            return this.poll_pause(context).map(|status| Some(Err(status)));
        };
        if frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers)) {
            this.meter.end()?;
        }
        if let Some(pauses) = &mut this.pauses {
            let now = Instant::now();
            if this.meter.is_empty() {
                pauses.end = None;
            }
            let end = *pauses.end.get_or_insert(now + pauses.whole);
            pauses.until.as_mut().reset(end.min(now + pauses.longest));
        }
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|error| {
                this.meter.read().broke_off = true;
                Status::cancelled(format!("the message broke off: {error}"))
            })?;
            if let Some(data) = frame.data_ref() {
                this.meter.count(data.len())?;
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
