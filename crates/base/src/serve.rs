//! Serves HTTP/1 and HTTP/2 on a listener: accepts, bounds, times out and lets go of connections.
//!
//! A client that is slow, silent or gone costs a bounded time and a bounded number of places:
//!
//! - from its acceptance a connection has [`Limits::head`] until the first request's head is complete, whatever it
//!   sends or does not send; the same from the first byte of each later head of HTTP/1 on;
//! - between requests it may be idle for [`Limits::idle`];
//! - while an answer is owed, the client must take some of it within [`Limits::stall`]; over HTTP/2 this holds for each call, and
//!   ends that call alone. A connection whose client has not taken the last pieces of answers gets a GOAWAY after that time, or
//!   twice that at most, and is closed when it has passed again;
//! - all connections together have at most [`Limits::calls`] over HTTP/2;
//! - a connection beyond [`Limits::connections`] is told so, and one whose request is no HTTP.
//!
//! A client that ends its half of an HTTP/1 connection after a request still gets the answer. It is told from one that
//! is gone by what a socket says when something is sent: `100 Continue` before an answer, a comment between events. A client
//! that is gone ends its connection, and with it its requests. Where an answer is given although the request was not read to its end, what still comes is
//! read for a moment: closing a connection with bytes unread would reset it, and the client would lose the answer.
//!
//! **Invariant:** a request costs no timer and no lock here.

mod body;
pub mod broken;
pub mod conformance;
mod connection;
mod head;
mod socket;
mod stream;
pub mod taking;
mod unreadable;
pub mod untaken;
mod watch;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::Semaphore,
};

pub use head::{MOST_READ as MOST_HEAD_READ, too_large as head_too_large};
pub use unreadable::{Unreadable, Words};
pub use watch::Peer;

use crate::Tasks;
use stream::Stream;
use untaken::Calls;

/// How long to wait after the machine refused to hand over a connection, as when it has no file descriptors left.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// [`Limits::calls`] of every listener. A call costs about 25 KiB beside its body, and each connection may have a thousand.
pub const MOST_CALLS: usize = 20_000;

/// Refused connections that are read to their end at one time, so that their clients read the refusal.
const MOST_REFUSED: usize = 256;

/// Bounds of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// From the acceptance of a connection to the end of the first request's head.
    pub head: Duration,
    /// Calls over HTTP/2 at one time, of all connections, beside the first of each. A piece of an answer that its client has
    /// not taken counts as one.
    pub calls: usize,
    /// The longest time without a request.
    pub idle: Duration,
    /// The longest time for which a client takes nothing of an answer.
    pub stall: Duration,
    /// What is told, in HTTP/1.1, to a connection beyond the bound.
    pub full: &'static str,
    /// What is told, in HTTP/1.1, to a client whose head took too long.
    pub slow: &'static str,
    /// How a client is told that its request is no HTTP.
    pub words: Words,
}

/// Where connections come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'l> {
    /// A TCP port.
    Tcp(&'l TcpListener),
    /// A Unix socket.
    Unix(&'l UnixListener),
}

impl Source<'_> {
    async fn accept(self, limits: &Limits) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written whole; waiting for more would only delay them.
                stream.set_nodelay(true)?;
                // The kernel forgets what a peer that is gone never took.
                let stall = u32::try_from(limits.stall.as_millis()).unwrap_or(u32::MAX);
                sockopt::set_tcp_user_timeout(&stream, stall)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One was accepted.
    Opened,
    /// One that was accepted is closed.
    Closed,
    /// One was refused at the bound.
    Refused,
}

/// When connections end.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// Once these are told to end, HTTP/2 clients are told to go elsewhere. Requests are still answered.
    pub draining: Tasks,
    /// The connections' tasks. Once these are told to end, each connection ends after its requests in flight.
    pub connections: Tasks,
    /// Once these are told to end, whatever is still open is closed.
    pub cut: Tasks,
}

/// Answers the requests of all connections.
pub trait Answer: Send + Sync + 'static {
    /// The body of an answer.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + Send
        + 'static;

    /// Answers one request.
    fn answer(
        self: Arc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Self::Body>, Infallible>> + Send;

    /// Refuses a request before it is answered, as this server writes errors.
    fn refuse(&self, request: &Request<Incoming>, status: StatusCode, words: &str) -> Response<Self::Body>;

    /// Is told what happens to connections.
    fn changed(&self, _: Change) {}
}

/// Tells clients that their connection is one too many, and reads for a moment what they still send, so that they read it.
#[derive(Debug)]
pub struct Refusals(Arc<Semaphore>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_REFUSED)))
    }
}

impl Refusals {
    /// Tells one of TCP. It is read from in a task of `tasks`.
    pub fn refuse_tcp(&self, stream: TcpStream, words: &str, tasks: &Tasks) {
        self.refuse(Stream::Tcp(stream), words, tasks);
    }

    fn refuse(&self, stream: Stream, words: &str, tasks: &Tasks) {
        stream.say(words);
        if let Ok(place) = Arc::clone(&self.0).try_acquire_owned() {
            tasks.spawn(async move {
                stream.linger().await;
                drop(place);
            });
        }
    }
}

/// Accepts from a TCP port until `tasks` are told to end, which ends each connection after its requests in flight. What is still
/// open then is closed when the tasks that come back are told to end.
pub async fn accept_until_stopped<A: Answer>(
    listener: TcpListener,
    limits: Limits,
    answer: &Arc<A>,
    tasks: &Tasks,
) -> Tasks {
    let ending = Ending { draining: tasks.clone(), connections: tasks.clone(), cut: Tasks::new() };
    tokio::select! {
        () = accept(Source::Tcp(&listener), limits, answer, &ending) => {}
        () = tasks.stopping() => {}
    }
    ending.cut
}

/// Accepts until dropped. Each connection is a task of `ending.connections`.
pub async fn accept<A: Answer>(listener: Source<'_>, limits: Limits, answer: &Arc<A>, ending: &Ending) {
    let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let (refusals, calls) = (Refusals::default(), Arc::new(Calls::new(limits.calls)));
    let mut failing = false;
    loop {
        let stream = match listener.accept(&limits).await {
            Ok(stream) => stream,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("a connection could not be accepted: {error}; the next ones are tried");
                }
                tokio::time::sleep(REST_AFTER_FAILURE).await;
                continue;
            }
        };
        failing = false;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            answer.changed(Change::Refused);
            refusals.refuse(stream, limits.full, &ending.connections);
            continue;
        };
        let (answer, serving, calls) = (Arc::clone(answer), ending.clone(), Arc::clone(&calls));
        ending.connections.spawn(async move {
            answer.changed(Change::Opened);
            connection::serve(stream, &limits, calls, &answer, &serving).await;
            answer.changed(Change::Closed);
            drop(place);
        });
    }
}
