//! Connections to replicas.
//!
//! An HTTP/1 connection has no task of its own: whoever sends on it also drives it, until the answer's body
//! has ended and the connection goes back to its replica's pool. So a request wakes one task instead of two, and
//! hyper's two halves meet within one poll. That is why their wake-ups of each other are thrown away
//! ([`Waker::noop`]) and only the socket's reach the event loop.
//!
//! gRPC needs HTTP/2, where requests share a connection; that one is driven by a task.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use api::replica::Address;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::{alarm::Alarm, body::SendBody, shard::Executor};

/// A socket to a replica.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects.
    pub(crate) async fn connect(address: &Address, patience: Duration) -> io::Result<Self> {
        let connecting = async {
            match address {
                Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
                Address::Tcp(host) => {
                    let stream = TcpStream::connect(host.as_str()).await?;
                    stream.set_nodelay(true)?;
                    Ok(Self::Tcp(stream))
                }
            }
        };
        match tokio::time::timeout(patience, connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                let words = format!("no connection within {} ms", patience.as_millis());
                Err(io::Error::new(io::ErrorKind::TimedOut, words))
            }
        }
    }
}

macro_rules! either {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// Why a request got no answer, by what may be done about it.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Nothing of it was sent: it can go elsewhere. Here it is.
    Unsent(Box<Request<SendBody>>),
    /// The connection broke after something was sent.
    Broken(String),
    /// The time was up.
    TimedOut,
}

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
                Poll::Ready(Err(mut error)) => Poll::Ready(Err(match error.take_message() {
                    Some(request) => SendError::Unsent(Box::new(request)),
                    None => SendError::Broken(words(&error.into_error())),
                })),
                Poll::Pending if half.connection.is_none() => {
                    Poll::Ready(Err(SendError::Broken("the connection was closed".to_owned())))
                }
                Poll::Pending => {
                    while alarm.poll(cx).is_ready() {
                        if !extend(alarm) {
                            return Poll::Ready(Err(SendError::TimedOut));
                        }
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// An error and its causes in one line.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

/// An HTTP/2 connection to a replica. Clones share it.
#[derive(Clone)]
pub(crate) struct Grpc(http2::SendRequest<SendBody>);

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
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(TokioIo::new(socket))
            .await?;
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a gRPC connection to a replica ended: {}", words(&error));
            }
        });
        Ok(Self(sender))
    }

    /// Whether it is of no more use.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request and waits for the answer's head.
    pub(crate) async fn send(
        &mut self,
        request: Request<SendBody>,
        alarm: &mut Alarm,
    ) -> Result<Response<Incoming>, SendError> {
        let mut answer = pin!(self.0.try_send_request(request));
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(mut error)) => Poll::Ready(Err(match error.take_message() {
                Some(request) => SendError::Unsent(Box::new(request)),
                None => SendError::Broken(words(&error.into_error())),
            })),
            Poll::Pending => alarm.poll(cx).map(|()| Err(SendError::TimedOut)),
        })
        .await
    }
}
