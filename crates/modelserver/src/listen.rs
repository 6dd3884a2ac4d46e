//! Accepts connections and serves each in a task of its own, HTTP/1 and HTTP/2 alike.
//!
//! An idle connection costs its task and a small buffer. At the limit of connections a new one is told so and
//! closed at once, so that a flood of them neither takes the memory nor leaves callers guessing.

use std::{io, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use base::Tasks;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::{Config, ServeError, app::App, caller::Caller, rest};

/// Said to a connection too many.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    x-modelway-not-begun: 1\r\nconnection: close\r\ncontent-length: 79\r\n\r\n\
    {\"error\":\"this server has as many connections as serve.max_connections allows\"}";

/// How long a peer may leave an answer unread, in milliseconds.
const UNREAD_MS: u32 = 60_000;

/// Where the server listens.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Listens where the configuration says. A socket file that a dead server left is replaced; one that
    /// answers is not.
    ///
    /// # Errors
    /// What the machine says, in words that name the setting.
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

    /// Whether only this machine can reach it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(listener) => listener.local_addr().is_ok_and(|addr| addr.ip().is_loopback()),
            Self::Unix(_) => true,
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

    /// Ends listening; a socket's file goes with it.
    pub(crate) fn close(self) {
        if let Self::Unix(listener) = &self
            && let Some(path) = listener.local_addr().ok().as_ref().and_then(|addr| addr.as_pathname())
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, socket = %path.display(), "the socket's file stays");
        }
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are written whole; waiting for more would only delay them.
                stream.set_nodelay(true)?;
                // A peer that takes nothing for so long, or is gone, does not hold its answer's memory for ever.
                sockopt::set_tcp_user_timeout(&stream, UNREAD_MS)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

async fn bind_socket(path: PathBuf) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Io { what: format!("{} cannot be listened on", path.display()), source };
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

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Says that there are too many connections, if the peer takes it at once.
    fn refuse(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.try_write(TOO_MANY),
            Self::Unix(stream) => stream.try_write(TOO_MANY),
        };
    }
}

/// Accepts until dropped. Connections run as `connections`' tasks, and end after their request in flight once
/// those are told to end.
pub(crate) async fn accept(listener: &Listener, app: &Arc<App>, connections: &Tasks) {
    let permits = Arc::new(Semaphore::new(app.config.max_connections.min(Semaphore::MAX_PERMITS)));
    let server = Arc::new(builder(&app.config));
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                // Out of files, most often: accepting at once again would only spin.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            stream.refuse();
            continue;
        };
        let (server, app, ending) = (Arc::clone(&server), Arc::clone(app), connections.clone());
        connections.spawn(async move {
            match stream {
                Stream::Tcp(stream) => serve(&server, stream, app, &ending).await,
                Stream::Unix(stream) => serve(&server, stream, app, &ending).await,
            }
            drop(permit);
        });
    }
}

fn builder(config: &Config) -> auto::Builder<TokioExecutor> {
    let idle = Duration::from_millis(config.idle_timeout_ms.max(1));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Without `pipeline_flush`: it keeps an answer back while anything of a body is unread, and loses one that refuses
    // the body.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(idle)
        .max_concurrent_streams(1_000)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder
}

async fn serve<S>(server: &auto::Builder<TokioExecutor>, stream: S, app: Arc<App>, ending: &Tasks)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let caller = Caller::new();
    let service = service_fn(move |request| rest::answer(Arc::clone(&app), caller, request));
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ending.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // Peers break off all the time.
        tracing::debug!(%error, "a connection broke off");
    }
}
