//! A connected socket, of either kind.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

/// How long, and how much, is read of a client that got its answer and still sends.
const LINGER: Duration = Duration::from_secs(2);
const MOST_LINGERED: usize = 64 << 20;

/// A connected socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! either {
    ($stream:expr, $inner:ident => $work:expr) => {
        match $stream {
            Stream::Tcp($inner) => $work,
            Stream::Unix($inner) => $work,
        }
    };
}

pub(super) use either;

impl Stream {
    /// Says something, if the client takes it at once.
    pub(super) fn say(&self, words: &str) {
        let _ = either!(self, stream => stream.try_write(words.as_bytes()));
    }

    /// Ends our half, and reads what still comes for a while: closing with bytes unread would reset the connection,
    /// and the client might lose what it was told.
    pub(super) async fn linger(self) {
        if shutdown(self.fd(), Shutdown::Write).is_err() {
            return;
        }
        let mut scrap = vec![0; 64 << 10];
        let mut left = MOST_LINGERED;
        let read = async {
            while left > 0 {
                if either!(&self, stream => stream.readable().await).is_err() {
                    return;
                }
                match either!(&self, stream => stream.try_read(&mut scrap)) {
                    Ok(0) => return,
                    Ok(count) => left = left.saturating_sub(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, read).await;
    }

    fn fd(&self) -> BorrowedFd<'_> {
        either!(self, stream => stream.as_fd())
    }

    /// Looks at the next byte without taking it. `Ok(0)`: the client sends nothing more.
    pub(super) fn peek(&self) -> io::Result<usize> {
        let look = || {
            let (_, count) = recv(self.fd(), &mut [0_u8][..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
            Ok(count)
        };
        either!(self, stream => stream.try_io(Interest::READABLE, look))
    }

    /// Whether the client takes nothing more either.
    pub(super) fn is_hung_up(&self) -> bool {
        crate::net::is_hung_up(&self.fd())
    }
}
