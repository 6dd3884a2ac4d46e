//! Counts HTTP/2 calls of all connections, and pieces of answers that clients have not read.
//!
//! A client may have a thousand HTTP/2 calls on one connection, so the limit on connections is not enough. And hyper
//! ends its task for a call once it has passed the last piece of the answer to h2, which keeps that piece while the
//! client's window is full. Code that watches the task does not see this. So each piece is counted until h2 drops it,
//! and a connection that keeps pieces for too long is closed.
//!
//! **Invariant:** a piece that is read costs one allocation and no clock here.

use std::sync::{
    Arc,
    atomic::{
        AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use bytes::Bytes;

/// What one connection may hold without being counted: one call and one piece of its answer.
const FREE: usize = 2;

/// Calls and pieces of answers of all connections of a listener, except the first ones of each.
#[derive(Debug)]
pub struct Calls {
    held: AtomicUsize,
    most: usize,
}

impl Calls {
    /// An empty counter with this limit.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { held: AtomicUsize::new(0), most }
    }
}

/// The calls and pieces of one connection.
#[derive(Debug)]
pub struct Held {
    calls: Arc<Calls>,
    count: AtomicUsize,
    /// Pieces sent in even periods, and in odd ones.
    pieces: [AtomicUsize; 2],
    turn: AtomicUsize,
}

impl Held {
    /// Empty.
    #[must_use]
    pub fn new(calls: Arc<Calls>) -> Self {
        Self { calls, count: AtomicUsize::new(0), pieces: Default::default(), turn: AtomicUsize::new(0) }
    }

    /// Adds a call or a piece. `false`: all connections together hold too many.
    #[must_use]
    pub fn add(&self) -> bool {
        self.count.fetch_add(1, AcqRel) < FREE || self.calls.held.fetch_add(1, AcqRel) < self.calls.most
    }

    /// Removes a call or a piece.
    pub fn remove(&self) {
        if self.count.fetch_sub(1, AcqRel) > FREE {
            self.calls.held.fetch_sub(1, AcqRel);
        }
    }

    /// Whether the client has unread pieces.
    #[must_use]
    pub fn has_pieces(&self) -> bool {
        self.pieces.iter().any(|pieces| pieces.load(Acquire) > 0)
    }

    /// Begins the next period. `false`: the client has not read a piece that was sent before this period.
    #[must_use]
    pub fn next_turn(&self) -> bool {
        let next = self.turn.load(Relaxed) ^ 1;
        let taken = self.pieces[next].load(Acquire) == 0;
        if taken {
            self.turn.store(next, Relaxed);
        }
        taken
    }
}

/// A piece of an answer, until h2 drops it.
struct Piece {
    bytes: Bytes,
    held: Arc<Held>,
    turn: usize,
}

/// The same piece, counted.
pub fn counted(bytes: Bytes, held: &Arc<Held>) -> Bytes {
    let turn = held.turn.load(Relaxed);
    held.pieces[turn].fetch_add(1, AcqRel);
    // Its call was already admitted.
    let _ = held.add();
    Bytes::from_owner(Piece { bytes, held: Arc::clone(held), turn })
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.held.pieces[self.turn].fetch_sub(1, AcqRel);
        self.held.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(calls: &Arc<Calls>) -> Arc<Held> {
        Arc::new(Held::new(Arc::clone(calls)))
    }

    #[test]
    fn each_connection_has_a_call_and_a_piece_and_all_share_the_rest() {
        let calls = Arc::new(Calls::new(1));
        let [first, second] = [held(&calls), held(&calls)];
        assert_eq!([first.add(), first.add(), first.add()], [true; 3]);
        assert!(!first.add());
        assert_eq!([second.add(), second.add(), second.add()], [true, true, false]);
        for held in [&first, &first, &second] {
            held.remove();
        }
        assert!(first.add());
    }

    #[test]
    fn a_piece_may_stay_for_one_whole_turn() {
        let calls = Arc::new(Calls::new(10));
        let held = held(&calls);
        let piece = counted(Bytes::from_static(b"abc"), &held);
        let part = piece.slice(1..);
        drop(piece);
        assert!(held.has_pieces() && held.next_turn());
        let later = counted(Bytes::from_static(b"d"), &held);
        assert!(!held.next_turn());
        drop(part);
        assert!(held.next_turn() && held.has_pieces());
        assert!(!held.next_turn());
        drop(later);
        assert!(!held.has_pieces() && held.next_turn());
        assert_eq!(calls.held.load(Relaxed), 0);
    }
}
