//! The socket of a connection as hyper uses it. It records facts that hyper does not report.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    stream::{Stream, either},
    terms::Limits,
    unreadable::{Unreadable, Words},
    watch::Watch,
};

/// The progress, in bytes, after which an answer no longer counts as stuck.
const PROGRESS: usize = 256 << 10;

/// A response that every HTTP/1.1 client ignores.
const STILL_THERE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The socket that hyper reads and writes. It returns to the task of the connection when hyper drops it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Option<Stream>,
    watch: Arc<Watch>,
    stall: u64,
    /// Writing is stuck; so many bytes were written since that was noted.
    stuck: Option<usize>,
    /// Unread bytes belong to another request.
    more: bool,
    words: Words,
    unreadable: Unreadable,
}

impl Socket {
    pub(super) fn new(stream: Stream, watch: Arc<Watch>, limits: &Limits) -> Self {
        let stall = u64::try_from(limits.stall.as_millis()).unwrap_or(u64::MAX);
        let (words, unreadable) = (limits.words, Unreadable::default());
        Self { stream: Some(stream), watch, stall, stuck: None, more: false, words, unreadable }
    }

    /// How much of `bytes` goes to the client unchanged.
    fn look_at(&mut self, bytes: &[u8]) -> usize {
        let length = self.unreadable.replace(bytes, self.words);
        if self.unreadable.is_some() {
            self.watch.set_unread();
        }
        length
    }

    /// Tests whether the client is still connected while it waits for an answer, because hyper does not read during
    /// that time.
    fn look(&mut self, context: &mut Context<'_>) {
        let Some(stream) = self.stream.as_ref().filter(|_| !self.more && self.watch.is_waited_for()) else { return };
        if self.watch.is_half_closed() {
            let mut gone = false;
            if self.watch.take_ask() && self.stuck.is_none() {
                let sent = either!(stream, stream => stream.try_write(STILL_THERE));
                // A partial write would corrupt the answer.
                gone = sent.is_ok_and(|sent| sent < STILL_THERE.len());
            }
            if gone || stream.is_hung_up() {
                self.watch.set_closed(true);
            }
            return;
        }
        while let Poll::Ready(ready) = either!(stream, stream => stream.poll_read_ready(context)) {
            match ready.and_then(|()| stream.peek()) {
                Ok(0) => return self.watch.set_closed(stream.is_hung_up()),
                Ok(_) => {
                    self.more = true;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.watch.set_closed(true),
            }
        }
    }

    fn wrote(&mut self, wrote: &Poll<io::Result<usize>>) {
        let stuck_for = match (wrote, self.stuck) {
            (Poll::Pending, None) => 0,
            (Poll::Ready(Ok(count)), Some(before)) if before + count < PROGRESS => {
                self.stuck = Some(before + count);
                return;
            }
            (Poll::Ready(Ok(_)), Some(_)) => 0,
            (Poll::Pending, Some(_)) | (Poll::Ready(_), _) => return,
        };
        self.stuck = Some(stuck_for);
        self.watch.set_write_until(Some(self.watch.now().saturating_add(self.stall)));
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.watch.give_back(stream);
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone())) };
        let read = either!(stream, stream => Pin::new(stream).poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.more = false;
            self.watch.read();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, mut bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.watch.owes_nothing() {
            let length = self.look_at(bytes);
            if self.unreadable.is_some() {
                return Poll::Ready(Ok(bytes.len()));
            }
            bytes = &bytes[..length];
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone())) };
        let wrote = either!(stream, stream => Pin::new(stream).poll_write(context, bytes));
        self.wrote(&wrote);
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [all] = pieces {
            return self.poll_write(context, all);
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(gone())) };
        let wrote = either!(stream, stream => Pin::new(stream).poll_write_vectored(context, pieces));
        self.wrote(&wrote);
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Called when all data has been written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stuck.take().is_some() {
            self.watch.set_write_until(None);
        }
        self.watch.flushed();
        self.look(context);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Poll::Ready(Ok(())) };
        // A client that is gone needs no error response.
        let _told = ready!(either!(stream, stream => this.unreadable.poll_write(stream, context)));
        either!(stream, stream => Pin::new(stream).poll_shutdown(context))
    }
}
