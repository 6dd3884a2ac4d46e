//! Waiting for the end of a process that need not be a child.
#![allow(unsafe_code, reason = "tokio takes foreign file descriptors only on a promise; this is the only one given")]

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// A process that is being watched.
#[derive(Debug)]
pub(super) struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// Begins to watch the process that a pidfd refers to.
    pub(super) fn watch(pidfd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open, is nobody else's and always names the same descriptor until it is
        // dropped, and the `AsyncFd` owns it from here on.
        let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        Ok(Self(watched?))
    }

    /// Resolves when the process has ended.
    pub(super) async fn ended(&self) {
        // A pidfd becomes readable once and stays so; an error here means that the runtime shuts down.
        let _ = self.0.readable().await;
    }
}
