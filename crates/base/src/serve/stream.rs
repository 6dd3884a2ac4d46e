//! A connected socket, TCP or Unix.

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

/// How long, and how much, the server reads from a client that got its answer and still sends.
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
    /// Sends data, if the socket accepts it at once.
    pub(super) fn say(&self, words: &str) {
        let _ = either!(self, stream => stream.try_write(words.as_bytes()));
    }

    /// Closes our half, and reads for a short time what still arrives: closing with unread bytes would reset the
    /// connection, and the client could lose the answer.
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

    /// Peeks at the next byte. `Ok(0)`: the client has closed its sending half.
    pub(super) fn peek(&self) -> io::Result<usize> {
        let look = || {
            let (_, count) = recv(self.fd(), &mut [0_u8][..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
            Ok(count)
        };
        either!(self, stream => stream.try_io(Interest::READABLE, look))
    }

    /// Whether the client has closed its receiving half too.
    pub(super) fn is_hung_up(&self) -> bool {
        crate::net::is_hung_up(&self.fd())
    }
}
