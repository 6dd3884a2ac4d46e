//! The time that a caller gives its call (`grpc-timeout`): from the call's head to the end of its answer.
//!
//! What is under way when it ends is given up, as if the client had left.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use api::words;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::{Status, body::Body as GrpcBody};

use super::refusal::refused;
use crate::protocol::rest::answer::{Answer, Body};

/// When a call's time is up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// Of a call whose head was read just now, if its caller gives it a time. The error is in words for the caller.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let timeout = base::grpc::timeout(headers)?;
        Ok(timeout.map(|timeout| Self(Instant::now() + timeout)))
    }

    /// The answer, ended when the time is up.
    pub(super) async fn hold(self, answering: impl Future<Output = Answer>) -> Answer {
        if self.0 <= Instant::now() {
            return refused(late());
        }
        match timeout_at(self.0, answering).await {
            Err(_) => refused(late()),
            Ok(answer) => answer.map(|body| match body {
                Body::Grpc(body) if !body.is_end_stream() => {
                    Body::Grpc(GrpcBody::new(Held { body: Some(body), deadline: self, sleep: None }))
                }
                other @ (Body::Grpc(_) | Body::Full(_) | Body::Pieces(_)) => other,
            }),
        }
    }
}

fn late() -> Status {
    Status::deadline_exceeded(words::CALL_LATE)
}

/// The body of an answer, until the time is up.
struct Held {
    /// `None` after the end.
    body: Option<GrpcBody>,
    deadline: Deadline,
    /// Set once the body makes its client wait.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let Deadline(at) = this.deadline;
        ready!(this.sleep.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx));
        this.body = None;
        let mut trailers = HeaderMap::new();
        let written = late().add_header(&mut trailers);
        Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
