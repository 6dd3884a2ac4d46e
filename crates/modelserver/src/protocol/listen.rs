//! The listener of the server, and its limits of connections.

use std::{convert::Infallible, io, path::PathBuf, sync::Arc, time::Duration};

use base::serve::{self, Answer, Ending, Limits, Peer, Source};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::{
    Config, ServeError,
    protocol::{
        app::{App, Reach},
        rest,
    },
};

/// The response to a connection above the limit.
const TOO_MANY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    x-modelway-not-begun: 1\r\nconnection: close\r\ncontent-length: 79\r\n\r\n\
    {\"error\":\"this server has as many connections as serve.max_connections allows\"}";

/// The response to a client whose header took too long.
const SLOW_HEAD: &str = "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n\
    content-length: 97\r\n\r\n\
    {\"error\":\"the request's headers took too long (serve.header_timeout_ms); send them in one piece\"}";

/// The listener.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Listens on the configured address. The socket file of a dead server is replaced; one that answers is not.
    ///
    /// # Errors
    /// The error of the operating system, with the name of the setting.
    pub async fn bind(config: &Config) -> Result<Self, ServeError> {
        match &config.socket {
            Some(path) => bind_socket(path.clone()).await.map(Self::Unix),
            None => {
                let addr = if config.host.contains(':') {
                    format!("[{}]:{}", config.host.trim_matches(['[', ']']), config.port)
                } else {
                    format!("{}:{}", config.host, config.port)
                };
                let bound = base::net::bind(&addr, "--host and --port").await;
                bound.map(Self::Tcp).map_err(|e| ServeError::Address(e.to_string()))
            }
        }
    }

    /// Who can reach it.
    pub(crate) fn reach(&self) -> Reach {
        match self {
            Self::Tcp(listener) if listener.local_addr().is_ok_and(|addr| addr.ip().is_loopback()) => Reach::Loopback,
            Self::Tcp(_) => Reach::Network,
            Self::Unix(_) => Reach::Socket,
        }
    }

    /// The address, for people.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|e| e.to_string(), |addr| addr.to_string()),
            Self::Unix(listener) => {
                let path = listener.local_addr().ok().and_then(|addr| addr.as_pathname().map(PathBuf::from));
                path.map_or_else(|| "a Unix socket".to_owned(), |path| format!("unix:{}", path.display()))
            }
        }
    }

    /// Stops listening; the file of a socket is removed.
    pub(crate) fn close(self) {
        if let Self::Unix(listener) = &self
            && let Some(path) = listener.local_addr().ok().as_ref().and_then(|addr| addr.as_pathname())
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, socket = %path.display(), "the socket's file stays");
        }
    }

    fn source(&self) -> Source<'_> {
        match self {
            Self::Tcp(listener) => Source::Tcp(listener),
            Self::Unix(listener) => Source::Unix(listener),
        }
    }
}

async fn bind_socket(path: PathBuf) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Io { what: format!("cannot listen on {}", path.display()), source };
    match UnixListener::bind(&path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(&path).await.is_ok() {
                return Err(failed(error));
            }
            std::fs::remove_file(&path).map_err(failed)?;
            UnixListener::bind(&path).map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

impl Answer for App {
    type Body = rest::answer::Body;

    async fn answer(
        self: Arc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> Result<rest::answer::Answer, Infallible> {
        rest::answer(self, peer, request).await
    }

    fn refuse(&self, request: &Request<Incoming>, status: StatusCode, words: &str) -> rest::answer::Answer {
        rest::refuse(request, status, words)
    }
}

/// Accepts until dropped.
pub(crate) async fn accept(listener: &Listener, app: &Arc<App>, ending: &Ending) {
    let config = &app.config;
    let millis = |millis: u64| Duration::from_millis(millis.max(1));
    let limits = Limits {
        connections: config.max_connections,
        calls: serve::MOST_CALLS,
        head: millis(config.header_timeout_ms),
        idle: millis(config.idle_timeout_ms),
        stall: millis(config.write_timeout_ms),
        full: TOO_MANY,
        slow: SLOW_HEAD,
        words: |_, words| ("application/json", serde_json::json!({ "error": words }).to_string()),
    };
    serve::accept(listener.source(), limits, app, ending).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_connections_is_well_formed() {
        for text in [TOO_MANY, SLOW_HEAD] {
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }
}
