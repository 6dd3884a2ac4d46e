//! A socket to a replica: TCP or Unix.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use api::replica::Address;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

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
