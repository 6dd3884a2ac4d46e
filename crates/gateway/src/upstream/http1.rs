//! HTTP/1 connections to replicas.
//!
//! Such a connection has no task of its own: whoever sends on it also drives it, until the answer's body
//! has ended and the connection goes back to its replica's pool. So a request wakes one task instead of two, and
//! hyper's two halves meet within one poll. That is why their wake-ups of each other are thrown away
//! ([`Waker::noop`]) and only the socket's reach the event loop.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::{
    body::{SendBody, SendError, is_late},
    socket::Socket,
};
use crate::wire::{alarm::Alarm, refusal::causes};

/// An HTTP/1 connection to a replica, with nothing in flight.
pub(crate) struct Link {
    half: Box<Halves>,
    /// The tick of its last use.
    pub(crate) used_at: u32,
}

struct Halves {
    sender: http1::SendRequest<SendBody>,
    /// `None` once it has ended.
    connection: Option<http1::Connection<TokioIo<Socket>, SendBody>>,
}

impl Halves {
    /// Lets the connection do what it can; `cx` is woken when it can do more.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            // Dropping it is what gives back a request that it had not begun.
            self.connection = None;
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("used_at", &self.used_at).finish_non_exhaustive()
    }
}

impl Link {
    /// Speaks HTTP/1 on a socket.
    pub(crate) async fn open(socket: Socket) -> Result<Self, hyper::Error> {
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(socket)).await?;
        let mut link = Self { half: Box::new(Halves { sender, connection: Some(connection) }), used_at: 0 };
        // The connection says that it is ready when it is driven for the first time.
        link.drive(&mut Context::from_waker(Waker::noop()));
        Ok(link)
    }

    /// Lets the connection do what it can. `cx` is woken when it can do more.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        self.half.drive(cx);
    }

    /// Whether it can take a request.
    pub(crate) fn is_ready(&self) -> bool {
        self.half.connection.is_some() && self.half.sender.is_ready()
    }

    /// Sends a request and waits for the answer's head. `alarm` says when to give up; `extend` is asked
    /// then whether there is a reason to wait on.
    pub(crate) async fn send(
        &mut self,
        request: Request<SendBody>,
        alarm: &mut Alarm,
        mut extend: impl FnMut(&mut Alarm) -> bool,
    ) -> Result<Response<Incoming>, SendError> {
        let mut answer = pin!(self.half.sender.try_send_request(request));
        poll_fn(|cx| {
            let half = &mut *self.half;
            half.drive(cx);
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(error)) => {
                    Poll::Ready(Err(SendError::of(error, |error| SendError::Broken(causes(error)))))
                }
                Poll::Pending if half.connection.is_none() => {
                    Poll::Ready(Err(SendError::Broken("the connection was closed".to_owned())))
                }
                Poll::Pending if is_late(alarm, cx, &mut extend) => Poll::Ready(Err(SendError::TimedOut)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
