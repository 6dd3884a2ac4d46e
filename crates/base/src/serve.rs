//! Serves HTTP/1 and HTTP/2 on a listener: accepts, limits, times out and closes connections.
//!
//! A client that is slow, silent or disconnected occupies a limited number of places for a limited time:
//!
//! - a connection has [`Limits::head`] from its acceptance until the first request header is complete, whatever it
//!   sends. In HTTP/1, each later header has the same time from its first byte;
//! - between requests it may be idle for [`Limits::idle`];
//! - while an answer is pending, the client must read some of it within [`Limits::stall`]. Over HTTP/2 this applies to
//!   each call, and ends only that call. If a client does not read the last pieces of answers, its connection gets a
//!   GOAWAY after that time to twice that time, and is closed after the same time again;
//! - all connections together may have [`Limits::calls`] calls over HTTP/2;
//! - a connection above [`Limits::connections`], or with a request that is not valid HTTP, gets an error response.
//!
//! A client that closes its sending half of an HTTP/1 connection after a request still gets its answer. To distinguish
//! it from a client that is gone, the server sends something and checks the socket: `100 Continue` before an answer, a
//! comment between events. If the client is gone, its connection and its requests end. If an answer is sent before the
//! whole request was read, the server reads the rest for a short time: closing a connection with unread bytes would
//! reset it, and the client would lose the answer.
//!
//! **Invariant:** a request uses no timer and no lock here.

mod body;
pub mod broken;
pub mod conformance;
mod connection;
mod head;
mod socket;
mod stream;
pub mod taking;
mod terms;
mod unreadable;
pub mod untaken;
mod watch;

use std::{io, sync::Arc, time::Duration};

use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::Semaphore,
};

pub use head::{MOST_READ as MOST_HEAD_READ, too_large as head_too_large};
pub use terms::{Answer, Change, Ending, Limits};
pub use unreadable::{Unreadable, Words};
pub use watch::Peer;

use crate::Tasks;
use stream::Stream;
use untaken::Calls;

/// The delay after a failed accept, for example without free file descriptors.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// The [`Limits::calls`] of every listener. A call uses about 25 KiB besides its body, and each connection may have a
/// thousand.
pub const MOST_CALLS: usize = 20_000;

/// Maximum number of refused connections that are read at one time, so that their clients can read the error.
const MOST_REFUSED: usize = 256;

/// The source of connections.
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
                // Answers are written as a whole; Nagle's algorithm would only delay them.
                stream.set_nodelay(true)?;
                // The kernel discards data that a disconnected peer never read.
                let stall = u32::try_from(limits.stall.as_millis()).unwrap_or(u32::MAX);
                sockopt::set_tcp_user_timeout(&stream, stall)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// Sends the error to connections above the limit. It then reads for a short time what they still send, so that they
/// can read the error.
#[derive(Debug)]
pub struct Refusals(Arc<Semaphore>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_REFUSED)))
    }
}

impl Refusals {
    /// Refuses one TCP connection. A task of `tasks` reads from it.
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

/// Accepts from a TCP port until `tasks` are told to end. Then each connection closes after its requests in flight.
/// When the returned tasks are told to end, the remaining connections are closed.
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
                    tracing::warn!("cannot accept a connection: {error}; the server keeps accepting");
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
