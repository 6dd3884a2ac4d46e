//! The state of one connection while hyper holds its socket.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    stream::Stream,
    untaken::{Calls, Held},
};

/// No deadline.
const NEVER: u64 = u64::MAX;

/// The client's half of the connection.
mod half {
    pub(super) const OPEN: u8 = 0;
    /// It is closed for sending.
    pub(super) const CLOSED: u8 = 1;
    /// It is closed for receiving too.
    pub(super) const GONE: u8 = 2;
}

/// The progress of an HTTP/1 answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answering {
    /// It has not begun.
    No = 0,
    /// It has begun.
    Bytes = 1,
    /// It has begun, and is a stream of events.
    Events = 2,
}

/// The state that the socket, the requests and the task of a connection share.
#[derive(Debug)]
pub(super) struct Watch {
    number: u64,
    born: Instant,
    /// Requests whose answers were not completely passed to the socket.
    requests: AtomicUsize,
    /// A part of an answer may not have been written yet.
    unflushed: AtomicBool,
    /// Whether there has been a request.
    spoke: AtomicBool,
    http2: AtomicBool,
    http10: AtomicBool,
    /// Bytes arrived while there was no request.
    head_begun: AtomicBool,
    /// The deadline of the next request, in milliseconds since `born`.
    idle_until: AtomicU64,
    /// The deadline for the socket to write some data.
    write_until: AtomicU64,
    /// Answers whose client has to read next.
    owed: AtomicUsize,
    /// A part of an answer was read.
    taken: AtomicBool,
    half: AtomicU8,
    /// Send the client something that shows whether it is connected.
    ask: AtomicBool,
    answer: AtomicU8,
    /// The last request may not have been read completely; its answer then closes the connection.
    unread: AtomicBool,
    /// Its answers announce the close.
    draining: AtomicBool,
    /// Its HTTP/2 calls and pieces.
    held: Arc<Held>,
    /// The socket, after hyper has released it.
    stream: Mutex<Option<Stream>>,
}

impl Watch {
    pub(super) fn new(head: Duration, calls: Arc<Calls>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Relaxed),
            born: Instant::now(),
            requests: AtomicUsize::new(0),
            unflushed: AtomicBool::new(false),
            spoke: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            http10: AtomicBool::new(false),
            head_begun: AtomicBool::new(false),
            idle_until: AtomicU64::new(millis(head)),
            write_until: AtomicU64::new(NEVER),
            owed: AtomicUsize::new(0),
            taken: AtomicBool::new(false),
            half: AtomicU8::new(half::OPEN),
            ask: AtomicBool::new(false),
            answer: AtomicU8::new(Answering::No as u8),
            unread: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            held: Arc::new(Held::new(calls)),
            stream: Mutex::default(),
        }
    }

    /// Milliseconds since the connection was accepted.
    pub(super) fn now(&self) -> u64 {
        millis(self.born.elapsed())
    }

    /// The time after this duration.
    pub(super) fn after(&self, time: Duration) -> u64 {
        self.now().saturating_add(millis(time))
    }

    /// The instant at this many milliseconds; far in the future if it exceeds any timer.
    pub(super) fn at(&self, millis: u64) -> Instant {
        const FAR: u64 = 365 * 24 * 3_600_000;
        self.born + Duration::from_millis(millis.min(FAR))
    }

    /// Begins a request. `false`: there are too many.
    pub(super) fn begin(&self, version: http::Version) -> bool {
        self.requests.fetch_add(1, AcqRel);
        self.unflushed.store(true, Relaxed);
        if !self.spoke.load(Relaxed) {
            self.http2.store(version == http::Version::HTTP_2, Relaxed);
            self.http10.store(version == http::Version::HTTP_10, Relaxed);
            self.spoke.store(true, Release);
        }
        self.head_begun.store(false, Relaxed);
        self.unread.store(false, Relaxed);
        self.set_answering(Answering::No);
        version != http::Version::HTTP_2 || self.held.add()
    }

    pub(super) fn end(&self, idle: Duration) {
        if self.http2.load(Relaxed) {
            self.held.remove();
        }
        if self.requests.fetch_sub(1, AcqRel) == 1 {
            self.idle_until.store(self.now().saturating_add(millis(idle)), Release);
        }
    }

    pub(super) fn has_requests(&self) -> bool {
        self.requests.load(Acquire) > 0
    }

    /// All data was written.
    pub(super) fn flushed(&self) {
        if self.unflushed.load(Relaxed) && !self.has_requests() {
            self.unflushed.store(false, Relaxed);
        }
    }

    /// Whether the next written data, if it is an answer, is one of hyper's own: no request is in progress.
    pub(super) fn owes_nothing(&self) -> bool {
        !self.has_requests() && !self.unflushed.load(Relaxed) && !self.is_http2()
    }

    pub(super) fn spoke(&self) -> bool {
        self.spoke.load(Acquire)
    }

    pub(super) fn is_http2(&self) -> bool {
        self.spoke() && self.http2.load(Relaxed)
    }

    /// Bytes arrived.
    pub(super) fn read(&self) {
        if !self.head_begun.load(Relaxed) && !self.has_requests() {
            self.head_begun.store(true, Relaxed);
        }
    }

    /// Whether a header has begun and is not complete.
    pub(super) fn in_head(&self) -> bool {
        self.head_begun.load(Relaxed) && !self.is_http2() && !self.has_requests()
    }

    /// The deadline of the next header.
    pub(super) fn idle_until(&self) -> u64 {
        if self.has_requests() { NEVER } else { self.idle_until.load(Acquire) }
    }

    pub(super) fn set_write_until(&self, until: Option<u64>) {
        self.write_until.store(until.unwrap_or(NEVER), Relaxed);
    }

    pub(super) fn write_until(&self) -> u64 {
        self.write_until.load(Relaxed)
    }

    pub(super) fn owe(&self, owed: bool) {
        if owed {
            self.owed.fetch_add(1, AcqRel);
        } else {
            self.owed.fetch_sub(1, AcqRel);
            self.taken.store(true, Relaxed);
        }
    }

    pub(super) fn is_owed(&self) -> bool {
        self.owed.load(Acquire) > 0
    }

    /// Whether data was read since the last call.
    pub(super) fn took(&self) -> bool {
        self.taken.load(Relaxed) && self.taken.swap(false, Relaxed)
    }

    pub(super) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    pub(super) fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    pub(super) fn set_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// Whether a client is waiting whose disconnect hyper does not detect.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.http2.load(Relaxed) && self.has_requests()
    }

    /// The client's half of the connection was closed; `gone`: the other half is known to be closed too.
    pub(super) fn set_closed(&self, gone: bool) {
        self.half.fetch_max(if gone { half::GONE } else { half::CLOSED }, AcqRel);
    }

    pub(super) fn is_half_closed(&self) -> bool {
        self.half.load(Acquire) != half::OPEN
    }

    pub(super) fn is_gone(&self) -> bool {
        self.half.load(Acquire) == half::GONE
    }

    /// Requests that the client is sent something that shows whether it is connected.
    pub(super) fn ask(&self) {
        self.ask.store(true, Relaxed);
    }

    /// Whether to send that now, between two headers.
    pub(super) fn take_ask(&self) -> bool {
        self.answering() == Answering::No && self.take_any_ask() && !self.http10.load(Relaxed)
    }

    /// Whether to send that now, between two events.
    pub(super) fn take_ask_of_events(&self) -> bool {
        self.answering() == Answering::Events && self.take_any_ask()
    }

    fn take_any_ask(&self) -> bool {
        self.ask.load(Relaxed) && self.ask.swap(false, Relaxed)
    }

    pub(super) fn set_answering(&self, answering: Answering) {
        self.answer.store(answering as u8, Relaxed);
    }

    pub(super) fn answering(&self) -> Answering {
        match self.answer.load(Relaxed) {
            0 => Answering::No,
            1 => Answering::Bytes,
            _ => Answering::Events,
        }
    }

    pub(super) fn give_back(&self, stream: Stream) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    pub(super) fn take_stream(&self) -> Option<Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER)
}

/// The client of a connection.
#[derive(Clone, Debug)]
pub struct Peer(pub(super) Arc<Watch>);

impl Peer {
    /// A number that is unique within this process.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_request_can_be_unread() {
        let watch = Watch::new(Duration::from_secs(1), Arc::new(Calls::new(1)));
        watch.begin(http::Version::HTTP_11);
        watch.set_unread();
        watch.end(Duration::from_secs(1));
        assert!(watch.is_unread());
        watch.begin(http::Version::HTTP_11);
        assert!(!watch.is_unread());
    }
}
