//! HTTP/2 connections to replicas, for gRPC. Requests share a connection, so a task drives it.

use std::{error::Error as _, fmt, future::poll_fn, pin::pin, task::Poll, time::Duration};

use base::error::chain;
use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{
    body::{SendBody, SendError, is_late},
    executor::Executor,
    place::Place,
    socket::Socket,
};
use crate::wire::alarm::Alarm;

/// Maximum number of calls that share a connection. Few servers allow fewer: RFC 9113, 6.5.2, advises against it.
const MOST_CALLS: u32 = 100;
/// How much a replica may send of one answer before the client has read it, and of all answers on a connection: answers
/// to slow clients do not block the others.
const ANSWER_AHEAD: u32 = 256 << 10;
const ANSWERS_AHEAD: u32 = MOST_CALLS * ANSWER_AHEAD;

/// An HTTP/2 connection to a replica. Clones share it.
#[derive(Clone)]
pub(crate) struct Grpc {
    sender: http2::SendRequest<SendBody>,
    place: Place,
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grpc")
    }
}

impl Grpc {
    /// Speaks HTTP/2 on a socket.
    pub(crate) async fn open(socket: Socket, executor: Executor) -> Result<Self, hyper::Error> {
        let tasks = executor.0.clone();
        let (sender, connection) = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .initial_stream_window_size(ANSWER_AHEAD)
            .initial_connection_window_size(ANSWERS_AHEAD)
            .handshake(TokioIo::new(socket))
            .await?;
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a gRPC connection to a replica ended: {}", chain(&error));
            }
        });
        Ok(Self { sender, place: Place::default() })
    }

    /// Whether it can no longer be used.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether one more call may use it. For the owner of the connection.
    pub(crate) fn has_place(&self) -> bool {
        self.place.count() <= MOST_CALLS as usize && !self.is_closed()
    }

    /// Whether a call uses it. For the owner of the connection.
    pub(crate) fn is_used(&self) -> bool {
        self.place.count() > 1
    }

    /// Whether both are the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.place.is(&other.place)
    }

    /// Its place, for the body of the answer.
    pub(crate) fn into_place(self) -> Place {
        self.place
    }

    /// Sends a request and waits for the header of the answer, like [`Link::send`](super::http1::Link::send).
    /// Afterwards only the header of the request is left and, if it was not sent, the body.
    pub(crate) async fn send(
        &mut self,
        outgoing: &mut Request<SendBody>,
        alarm: &mut Alarm,
        mut extend: impl FnMut(&mut Alarm) -> bool,
    ) -> Result<Response<Incoming>, SendError> {
        let mut request = Request::new(std::mem::replace(outgoing.body_mut(), SendBody::Held(None)));
        if let SendBody::Part(_, place) = request.body_mut() {
            *place = Some(self.place.clone());
        }
        *request.method_mut() = outgoing.method().clone();
        *request.uri_mut() = outgoing.uri().clone();
        *request.version_mut() = outgoing.version();
        *request.headers_mut() = outgoing.headers().clone();
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(mut error)) => Poll::Ready(Err(match error.take_message() {
                Some(request) => {
                    *outgoing.body_mut() = request.into_body();
                    SendError::Unsent
                }
                None => broken(error.error()),
            })),
            Poll::Pending if is_late(alarm, cx, &mut extend) => Poll::Ready(Err(SendError::TimedOut)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// What an error means for this request.
fn broken(error: &hyper::Error) -> SendError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<h2::Error>() {
            if cause.reason() == Some(h2::Reason::REFUSED_STREAM) {
                return SendError::TurnedAway;
            }
            // For requests that it has begun, the replica sends no such signal (RFC 9113, 6.8).
            if cause.is_go_away() && cause.is_remote() {
                return SendError::Closing;
            }
            if cause.is_reset() {
                return SendError::Reset(chain(error));
            }
        }
        source = cause.source();
    }
    SendError::Broken { error: chain(error), answering: false }
}
