//! The state of one client connection, recorded as it happens.
//!
//! Connection timeouts are not timers. The socket records the tick (a quarter of a second) of its last progress, and
//! one task per thread checks all connections once a second and closes those that exceed a limit: headers that arrive
//! too slowly, a client that does not read, an idle connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use base::serve::{Unreadable, untaken::Held};
use futures::task::AtomicWaker;
use http::Version;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::app::App;
use crate::{
    forward::lane::Lane,
    wire::{alarm::Alarm, refusal::error_body},
};

/// For answers up to this length, a copy is cheaper than a second piece for the kernel.
const JOINED: usize = 2 << 10;
/// If a client closed its sending half, the gateway tests after this many ticks whether it is still connected.
const HALF_CLOSED: u32 = 4;
/// A response that every HTTP/1.1 client ignores; a client that is gone resets the connection.
const STILL_THERE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why a connection must close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    /// After the requests in flight.
    Gracefully = 1,
    /// The headers took too long.
    SlowHeaders = 2,
    /// The connection is idle, or the client does not read.
    Stalled = 3,
}

/// The state of a connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// The forwarding state of its thread.
    pub(crate) lane: Arc<Lane>,
    pub(crate) app: Arc<App>,
    /// Its requests in flight.
    busy: AtomicU32,
    /// A part of an answer may not have been written yet.
    unflushed: AtomicBool,
    /// When the first byte of a request arrived; for the first request, when the connection was accepted; 0 before.
    head_since: AtomicU32,
    /// When the last request ended.
    idle_since: AtomicU32,
    /// Since when the client does not read; 0 while it does.
    blocked_since: AtomicU32,
    /// An [`End`], or 0.
    end: AtomicU8,
    /// When it was first told to close; 0 before.
    told_since: AtomicU32,
    /// The next answer is to be the last.
    closing: AtomicBool,
    /// Its HTTP/2 calls and pieces.
    pub(crate) held: Arc<Held>,
    /// The start of the period in which the client must read the pieces sent before it; 0 if there are none.
    turn_since: AtomicU32,
    waker: AtomicWaker,
    /// HTTP/2 sends frames between requests; such bytes are not the header of a request.
    pub(crate) http2: AtomicBool,
    /// The client may still be sending a body that nobody reads.
    pub(crate) linger: AtomicBool,
    /// When the client closed its sending half; 0 before.
    half_closed: AtomicU32,
    /// It must be tested whether the client is still connected.
    ask: AtomicBool,
    /// Something was sent since the last request began, or nothing may be sent before its answer.
    spoken: AtomicBool,
    alarm: Mutex<Option<Alarm>>,
}

impl Conn {
    pub(crate) fn new(app: Arc<App>, lane: Arc<Lane>) -> Arc<Self> {
        let (now, held) = (lane.tick(), Arc::new(Held::new(Arc::clone(&app.calls))));
        Arc::new(Self {
            lane,
            app,
            busy: AtomicU32::new(0),
            unflushed: AtomicBool::new(false),
            head_since: AtomicU32::new(now),
            idle_since: AtomicU32::new(now),
            blocked_since: AtomicU32::new(0),
            end: AtomicU8::new(0),
            told_since: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            held,
            turn_since: AtomicU32::new(0),
            waker: AtomicWaker::new(),
            http2: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            half_closed: AtomicU32::new(0),
            ask: AtomicBool::new(false),
            spoken: AtomicBool::new(false),
            alarm: Mutex::new(None),
        })
    }

    /// A request begins; it ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.unflushed.store(true, Ordering::Relaxed);
        self.spoken.store(version == Version::HTTP_10, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        let is_counted = version == Version::HTTP_2;
        let is_one_too_many = is_counted && !self.held.add();
        Busy { conn: Arc::clone(self), is_counted, is_one_too_many }
    }

    /// A timer set to `due`.
    pub(crate) fn alarm(&self, due: Instant) -> Alarm {
        match self.alarm.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(mut alarm) => {
                alarm.set(due);
                alarm
            }
            None => Alarm::new(due),
        }
    }

    /// Keeps a timer for the next request.
    pub(crate) fn keep_alarm(&self, alarm: Alarm) {
        *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = Some(alarm);
    }

    /// Tells the connection to close.
    pub(crate) fn end(&self, why: End) {
        if self.end.fetch_max(why as u8, Ordering::AcqRel) == 0 {
            self.told_since.store(self.lane.tick(), Ordering::Relaxed);
        }
        self.waker.wake();
    }

    /// Tells the connection that the gateway ends. Over HTTP/1 a request may be on its way that closing would cross with: a connection
    /// without one is told with its next answer, until the `last` time.
    pub(crate) fn drain(&self, last: bool) {
        if last || self.http2.load(Ordering::Relaxed) || self.busy.load(Ordering::Relaxed) > 0 {
            self.end(End::Gracefully);
        } else {
            self.closing.store(true, Ordering::Relaxed);
        }
    }

    /// Whether an answer has to tell the client to close the connection.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Whether, and why, it must close. Wakes the caller when that changes.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Option<End> {
        self.waker.register(cx.waker());
        match self.end.load(Ordering::Acquire) {
            0 => None,
            1 => Some(End::Gracefully),
            2 => Some(End::SlowHeaders),
            _ => Some(End::Stalled),
        }
    }

    /// Closes the connection if it exceeds a limit at tick `now`. Limits are in ticks.
    pub(crate) fn supervise(&self, now: u32, limits: &TickLimits) {
        let older = |since: &AtomicU32, limit: u32| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && now.saturating_sub(since) > limit
        };
        if !self.held.has_pieces() {
            self.turn_since.store(0, Ordering::Relaxed);
        } else if self.turn_since.load(Ordering::Relaxed) == 0 {
            self.turn_since.store(now.max(1), Ordering::Relaxed);
        } else if older(&self.turn_since, limits.write) {
            self.turn_since.store(now, Ordering::Relaxed);
            if !self.held.next_turn() {
                // The client first gets a GOAWAY, and then the same time again.
                let is_told = self.told_since.load(Ordering::Relaxed) != 0;
                self.end(if is_told { End::Stalled } else { End::Gracefully });
            }
        }
        if older(&self.blocked_since, limits.write) {
            self.end(End::Stalled);
        } else if self.busy.load(Ordering::Relaxed) == 0 {
            if older(&self.head_since, limits.header) {
                self.end(End::SlowHeaders);
            } else if older(&self.told_since, limits.write) && older(&self.idle_since, limits.write) {
                // hyper holds the ends of HTTP/2 answers, and the client has no room for them.
                self.end(End::Stalled);
            } else if self.head_since.load(Ordering::Relaxed) == 0 && older(&self.idle_since, limits.idle) {
                self.end(End::Gracefully);
            }
        } else if older(&self.half_closed, HALF_CLOSED) {
            self.ask.store(true, Ordering::Relaxed);
            self.waker.wake();
        }
    }

    /// All data was written.
    fn flushed(&self) {
        if self.unflushed.load(Ordering::Relaxed) && self.busy.load(Ordering::Relaxed) == 0 {
            self.unflushed.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the next written data, if it is an answer, is one of hyper's own: no request is in progress.
    fn owes_nothing(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
            && !self.unflushed.load(Ordering::Relaxed)
            && !self.http2.load(Ordering::Relaxed)
    }

    fn read_some(&self) {
        if !self.http2.load(Ordering::Relaxed)
            && self.busy.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.lane.tick(), Ordering::Relaxed);
        }
    }

    fn wrote(&self, done: bool) {
        if !self.spoken.load(Ordering::Relaxed) {
            self.spoken.store(true, Ordering::Relaxed);
        }
        if done {
            if self.blocked_since.load(Ordering::Relaxed) != 0 {
                self.blocked_since.store(0, Ordering::Relaxed);
            }
        } else if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.lane.tick(), Ordering::Relaxed);
        }
    }
}

/// The time limits of the states of a connection, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TickLimits {
    pub(crate) header: u32,
    pub(crate) idle: u32,
    pub(crate) write: u32,
}

/// A request in flight on a connection.
#[derive(Debug)]
pub(crate) struct Busy {
    conn: Arc<Conn>,
    /// It is an HTTP/2 call.
    is_counted: bool,
    /// All connections together hold too many calls.
    pub(crate) is_one_too_many: bool,
}

impl std::ops::Deref for Busy {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.is_counted {
            self.conn.held.remove();
        }
        self.conn.idle_since.store(self.conn.lane.tick(), Ordering::Relaxed);
        self.conn.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Joins short pieces, if they fit into `room`.
fn join<'r>(pieces: &[io::IoSlice<'_>], room: &'r mut [u8]) -> Option<&'r [u8]> {
    let mut length = 0;
    for piece in pieces {
        room.get_mut(length..length + piece.len())?.copy_from_slice(piece);
        length += piece.len();
    }
    Some(&room[..length])
}

/// A client socket that records its progress.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    stream: TcpStream,
    conn: Arc<Conn>,
    unreadable: Unreadable,
    /// Unread bytes belong to another request.
    more: bool,
}

impl ClientSocket {
    pub(crate) fn new(stream: TcpStream, conn: Arc<Conn>) -> Self {
        Self { stream, conn, unreadable: Unreadable::default(), more: false }
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Tests whether the client is still connected while it waits for an answer, because hyper does not read during
    /// that time.
    fn look(&mut self, cx: &mut Context<'_>) {
        let conn = &*self.conn;
        if self.more || conn.busy.load(Ordering::Relaxed) == 0 || conn.http2.load(Ordering::Relaxed) {
            return;
        }
        if conn.half_closed.load(Ordering::Relaxed) == 0 {
            match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])) {
                Poll::Pending => {}
                Poll::Ready(Ok(0)) => conn.half_closed.store(conn.lane.tick(), Ordering::Relaxed),
                Poll::Ready(Ok(_)) => self.more = true,
                Poll::Ready(Err(_)) => conn.end(End::Stalled),
            }
        } else if conn.ask.swap(false, Ordering::Relaxed) {
            if !conn.spoken.swap(true, Ordering::Relaxed) {
                // A partial write would corrupt the answer.
                if self.stream.try_write(STILL_THERE).is_ok_and(|sent| sent < STILL_THERE.len()) {
                    conn.end(End::Stalled);
                }
            }
            if base::net::is_hung_up(&self.stream) {
                conn.end(End::Stalled);
            }
        }
    }

    /// How much of `bytes` goes to the client unchanged.
    fn look_at(&mut self, bytes: &[u8]) -> usize {
        let length = self.unreadable.replace(bytes, |_, words| ("application/json", error_body(words)));
        if self.unreadable.is_some() {
            self.conn.linger.store(true, Ordering::Relaxed);
        }
        length
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.more = false;
            self.conn.read_some();
        }
        read
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.conn.owes_nothing() {
            let length = self.look_at(buf);
            if self.unreadable.is_some() {
                return Poll::Ready(Ok(buf.len()));
            }
            buf = &buf[..length];
        }
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.conn.wrote(wrote.is_ready());
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [all] = bufs {
            return self.poll_write(cx, all);
        }
        let wrote = match join(bufs, &mut [0; JOINED]) {
            Some(joined) => Pin::new(&mut self.stream).poll_write(cx, joined),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.conn.wrote(wrote.is_ready());
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Called when all data has been written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.conn.flushed();
        self.look(cx);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // A client that is gone needs no error response.
        let _told = ready!(this.unreadable.poll_write(&mut this.stream, cx));
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
