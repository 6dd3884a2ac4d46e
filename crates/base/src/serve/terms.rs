//! What whoever listens says: the bounds of connections, who answers, and when connections end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{unreadable::Words, watch::Peer};
use crate::Tasks;

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of connections.
    pub connections: usize,
    /// From the acceptance of a connection to the end of the first request header.
    pub head: Duration,
    /// Maximum number of HTTP/2 calls of all connections, not counting the first call of each. A piece of an answer
    /// that its client has not read counts as one call.
    pub calls: usize,
    /// The maximum time without a request.
    pub idle: Duration,
    /// The maximum time in which a client reads nothing of an answer.
    pub stall: Duration,
    /// The HTTP/1.1 response to a connection above the limit.
    pub full: &'static str,
    /// The HTTP/1.1 response to a client whose header took too long.
    pub slow: &'static str,
    /// The response to a request that is not valid HTTP.
    pub words: Words,
}

/// Callbacks for the life of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A connection was accepted.
    Opened,
    /// An accepted connection was closed.
    Closed,
    /// A connection was refused at the limit.
    Refused,
}

/// How connections end.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// When these are told to end, HTTP/2 clients get a GOAWAY. Requests are still answered.
    pub draining: Tasks,
    /// The tasks of the connections. When these are told to end, each connection closes after its requests in flight.
    pub connections: Tasks,
    /// When these are told to end, all remaining connections are closed.
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

    /// Refuses a request before it is handled, in the error format of this server.
    fn refuse(&self, request: &Request<Incoming>, status: StatusCode, words: &str) -> Response<Self::Body>;

    /// Receives the callbacks for connections.
    fn changed(&self, _: Change) {}
}
