//! Listening sockets, with errors that name the setting to change, and checks of addresses.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// Maximum number of connections that wait in the kernel to be accepted; the kernel lowers it to `somaxconn`.
const BACKLOG: u32 = 4096;

/// Why listening failed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens on the address.
    #[error("another process already listens on {addr}; stop it, or choose another address with {setting}")]
    Taken {
        /// The address.
        addr: String,
        /// The name of the setting.
        setting: String,
    },
    /// The operating system refuses.
    #[error("cannot listen on {addr}: {source}; choose another address with {setting}")]
    Refused {
        /// The address.
        addr: String,
        /// The name of the setting.
        setting: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
}

/// Whether the other end of a connection has closed both directions.
pub fn is_hung_up(socket: &impl AsFd) -> bool {
    let mut looked = [PollFd::new(socket, PollFlags::empty())];
    // An interrupting signal says nothing about the connection.
    let asked = retry_on_intr(|| poll(&mut looked, Some(&Timespec::default())));
    asked.is_err() || looked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Listens on `addr` (`host:port`; port 0 chooses a free port). `setting` is the name of the setting, for errors.
///
/// # Errors
/// [`BindError::Taken`] if another process listens, otherwise [`BindError::Refused`].
pub async fn bind(addr: &str, setting: &str) -> Result<TcpListener, BindError> {
    let refused = |source: io::Error| {
        let (addr, setting) = (addr.to_owned(), setting.to_owned());
        if source.kind() == io::ErrorKind::AddrInUse {
            BindError::Taken { addr, setting }
        } else {
            BindError::Refused { addr, setting, source }
        }
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for socket_addr in lookup_host(addr).await.map_err(refused)? {
        match listen(socket_addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(refused(last))
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port whose old connections still linger in the kernel counts as free.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Raises the soft limit of open files to the hard limit. Returns the new limit.
///
/// # Errors
/// The kernel's refusal.
pub fn raise_open_files() -> io::Result<u64> {
    let limits = getrlimit(Resource::Nofile);
    if limits.current != limits.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum })?;
    }
    Ok(limits.maximum.unwrap_or(u64::MAX))
}

/// Other machines can reach the address, and no setting allows that.
#[derive(Debug, thiserror::Error)]
#[error(
    "{setting} is {addr}, which other machines can reach, and there is no authentication yet; listen on 127.0.0.1, \
     or pass --allow-unauthenticated if everybody who reaches it may use it"
)]
pub struct NotLoopback {
    addr: String,
    setting: String,
}

/// Refuses an address that other machines can reach, unless `allow_unauthenticated` is set.
///
/// # Errors
/// [`NotLoopback`], which says what to do.
pub fn require_loopback(addr: &str, setting: &str, allow_unauthenticated: bool) -> Result<(), NotLoopback> {
    if allow_unauthenticated || is_loopback(addr) {
        return Ok(());
    }
    Err(NotLoopback { addr: addr.to_owned(), setting: setting.to_owned() })
}

/// Whether `addr` has the form `host:port`; an IPv6 address is in brackets.
#[must_use]
pub fn is_address(addr: &str) -> bool {
    let Some((host, port)) = addr.rsplit_once(':') else { return false };
    let whole = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    !host.is_empty() && whole && port.parse::<u16>().is_ok()
}

/// Whether only this machine can reach `host:port`.
#[must_use]
pub fn is_loopback(addr: &str) -> bool {
    // The last colon of `[::1]` is part of the host.
    let host = addr.rsplit_once(':').filter(|_| !addr.ends_with(']')).map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_said_with_the_setting_that_changes_it() {
        let first = bind("127.0.0.1:0", "--gateway-addr").await.expect("a free port");
        let addr = first.local_addr().expect("it is bound").to_string();
        let error = bind(&addr, "--gateway-addr").await.expect_err("it is taken").to_string();
        assert!(
            error.contains(&addr) && error.contains("--gateway-addr") && error.contains("already listens"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_address_without_a_port_is_refused_in_words() {
        let error = bind("127.0.0.1", "control.addr").await.expect_err("it has no port").to_string();
        assert!(error.contains("cannot listen on 127.0.0.1"), "{error}");
    }

    #[test]
    fn only_loopback_is_open_without_saying_so() {
        for open in ["127.0.0.1:80", "localhost:0", "[::1]:8080", "127.9.9.9:1", "localhost", "[::1]"] {
            assert!(require_loopback(open, "x", false).is_ok(), "{open}");
        }
        for closed in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "example.org:80", ":80"] {
            assert!(require_loopback(closed, "x", false).is_err(), "{closed}");
            assert!(require_loopback(closed, "x", true).is_ok(), "{closed}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for right in ["127.0.0.1:80", "localhost:0", "[::1]:8080", "example.org:65535"] {
            assert!(is_address(right), "{right}");
        }
        for wrong in ["", "foo", "8080", ":80", "127.0.0.1:", "::1:80", "[::1]", "localhost:65536", "http://localhost"]
        {
            assert!(!is_address(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_limit_of_open_files_rises_to_the_hard_one() {
        let limit = raise_open_files().expect("raising to the hard limit is allowed");
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), limit);
    }
}
