//! Splits a client stream with messages for several models: the replica of each model gets its own part.
//!
//! Nothing is queued and no task runs. Whichever part is polled reads the next piece from the client's stream, and
//! keeps it or leaves it to the part that it belongs to. While a piece waits there, nothing more is read. So a replica
//! that does not read its messages blocks the client, as it would alone.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::body::Incoming;

use super::pieces::Pieces;
use crate::wire::scan::{Found, Scanner};

/// Maximum number of models of one stream, not counting those that cannot be reached.
const MOST_MODELS: usize = 64;
/// Maximum number of unanswered messages for models that cannot be reached.
const MOST_LOST: usize = 64;

/// A model as named in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
}

/// A task for the reader of the answers.
#[derive(Debug)]
pub(crate) enum News {
    /// The stream named a new model, which needs a replica; the id of its first message.
    Model(Model, Part, String),
    /// A message for a model that cannot be reached: its id, and the reason.
    Lost(String, String),
}

/// A client's stream.
#[derive(Debug)]
pub(crate) struct Split(Arc<Mutex<State>>);

/// The messages for one model.
pub(crate) struct Part {
    state: Arc<Mutex<State>>,
    index: usize,
}

#[derive(Debug)]
struct State {
    rest: Incoming,
    pieces: Pieces,
    encoding: Option<Vec<u8>>,
    /// Maximum length of a message up to the name of its model.
    longest: usize,
    /// Data that was read from the stream and has no owner yet.
    unread: Bytes,
    /// The message whose model is not known yet.
    scanner: Scanner,
    head: BytesMut,
    /// The part that the rest of the current message belongs to, and its length.
    current: Option<(usize, usize)>,
    parts: Vec<Known>,
    /// New models by their parts, with the id of the first message; or a lost message.
    news: VecDeque<Note>,
    /// The error of the stream.
    fault: Option<String>,
    reader: Option<Waker>,
    ended: bool,
}

#[derive(Debug)]
enum Note {
    New(usize, String),
    Lost(String, String),
}

#[derive(Debug)]
struct Known {
    model: Model,
    piece: Option<Bytes>,
    waker: Option<Waker>,
    /// Why it accepts no messages.
    lost: Option<String>,
    /// Whether it cannot be reached.
    unreachable: bool,
    /// Whether its [`Part`] still exists.
    held: bool,
}

impl Known {
    fn new(model: Model) -> Self {
        Self { model, piece: None, waker: None, lost: None, unreachable: false, held: true }
    }

    /// Whether another model may take its place.
    fn is_free(&self) -> bool {
        self.unreachable && !self.held
    }
}

impl Split {
    /// A stream that began with `head`. `longest` limits the beginning of a message without the name of its model.
    pub(crate) fn new(head: Bytes, rest: Incoming, encoding: Option<&[u8]>, longest: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            rest,
            pieces: Pieces::default(),
            encoding: encoding.map(<[u8]>::to_vec),
            longest,
            unread: head,
            scanner: Scanner::new(encoding),
            head: BytesMut::new(),
            current: None,
            parts: Vec::new(),
            news: VecDeque::new(),
            fault: None,
            reader: None,
            ended: false,
        })))
    }

    /// The part of one model; its messages are no longer reported as news.
    pub(crate) fn part(&self, model: Model) -> Part {
        let mut state = lock(&self.0);
        state.parts.push(Known::new(model));
        Part { index: state.parts.len() - 1, state: Arc::clone(&self.0) }
    }

    /// A model cannot be reached: its messages are answered with `why` from now on. Other models can take its place;
    /// then it is tried again.
    pub(crate) fn lose(&self, model: &Model, why: &str) {
        let mut state = lock(&self.0);
        if let Some(part) = state.parts.iter_mut().find(|part| part.model == *model) {
            part.lost = Some(why.to_owned());
            part.piece = None;
            part.unreachable = true;
        }
        state.wake_parts();
    }

    /// The next task. Reads on if no part does: `None` once the stream has ended.
    pub(crate) fn poll_news(&self, cx: &mut Context<'_>) -> Poll<Option<News>> {
        let mut state = lock(&self.0);
        state.reader = Some(cx.waker().clone());
        loop {
            if let Some(note) = state.news.pop_front() {
                state.wake_parts();
                return Poll::Ready(Some(match note {
                    Note::Lost(id, why) => News::Lost(id, why),
                    Note::New(index, id) => {
                        let part = Part { state: Arc::clone(&self.0), index };
                        News::Model(state.parts[index].model.clone(), part, id)
                    }
                }));
            }
            if state.ended {
                return Poll::Ready(None);
            }
            if state.parts.iter().any(|part| part.piece.is_some() || part.lost.is_none()) {
                // A part reads.
                return Poll::Pending;
            }
            ready!(state.advance(cx));
        }
    }

    /// The error of the stream, if it ended because of one.
    pub(crate) fn fault(&self) -> Option<String> {
        lock(&self.0).fault.take()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Part {
    /// The next piece of the messages for this model.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(piece) = state.parts[self.index].piece.take() {
                state.wake_parts();
                return Poll::Ready(Some(piece));
            }
            if state.ended {
                return Poll::Ready(None);
            }
            state.parts[self.index].waker = Some(cx.waker().clone());
            if state.is_held_up() {
                return Poll::Pending;
            }
            ready!(state.advance(cx));
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let part = &mut state.parts[self.index];
        part.piece = None;
        part.held = false;
        if part.lost.is_none() {
            part.lost = Some("its replica ended the stream".to_owned());
        }
        // It may be the part that the client's stream would have woken.
        state.wake_parts();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn is_held_up(&self) -> bool {
        self.news.len() >= MOST_LOST || self.parts.iter().any(|part| part.piece.is_some())
    }

    fn wake_parts(&mut self) {
        for waker in self.parts.iter_mut().filter_map(|part| part.waker.take()).chain(self.reader.clone()) {
            waker.wake();
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.wake_parts();
    }

    /// Reads one more piece, and gives it to its owner.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unread.is_empty() {
            // A message must not wait for the next one.
            let piece = match self.pieces.poll(&mut self.rest, cx, |_| ()) {
                Poll::Pending => Some(Ok(ready!(self.pieces.take().map_or(Poll::Pending, Poll::Ready)))),
                Poll::Ready(piece) => piece,
            };
            match piece {
                None => self.end(),
                Some(Ok(piece)) => self.unread = piece,
                Some(Err(error)) => self.fail(error.to_string()),
            }
        } else if let Some((index, left)) = self.current {
            let piece = self.unread.split_to(self.unread.len().min(left));
            self.current = Some((index, left - piece.len())).filter(|(_, left)| *left > 0);
            self.give(index, piece);
        } else {
            match self.scanner.read(&self.unread) {
                Ok(taken) => {
                    self.head.extend_from_slice(&self.unread[..taken]);
                    self.unread.advance(taken);
                    match self.scanner.found() {
                        Found::Model => self.begin_message(),
                        Found::More if self.head.len() > self.longest => {
                            self.fail("the name of the model comes too late in the message".to_owned());
                        }
                        Found::More => {}
                    }
                }
                Err(refusal) => self.fail(refusal.words),
            }
        }
        Poll::Ready(())
    }

    /// The model of the current message is known.
    fn begin_message(&mut self) {
        let scanner = std::mem::replace(&mut self.scanner, Scanner::new(self.encoding.as_deref()));
        let head = self.head.split().freeze();
        let model = Model { name: scanner.name(), version: scanner.version() };
        let known = self.parts.iter().position(|part| part.model == model);
        let Some(index) = known.or_else(|| self.place()) else {
            return self.fail(format!("the stream names more than {MOST_MODELS} models"));
        };
        if known.is_none() {
            let part = Known::new(model);
            match self.parts.get_mut(index) {
                Some(free) => *free = part,
                None => self.parts.push(part),
            }
            self.news.push_back(Note::New(index, scanner.id()));
            self.wake_parts();
        }
        self.current = Some((index, scanner.left())).filter(|(_, left)| *left > 0);
        if let Some(why) = self.parts[index].lost.clone() {
            self.news.push_back(Note::Lost(scanner.id(), why));
            self.wake_parts();
        }
        self.give(index, head);
    }

    /// A place for one more model.
    fn place(&self) -> Option<usize> {
        let free = || self.parts.iter().position(Known::is_free);
        if self.parts.len() < MOST_MODELS { Some(self.parts.len()) } else { free() }
    }

    fn fail(&mut self, words: String) {
        self.fault = Some(words);
        self.end();
    }

    fn give(&mut self, index: usize, piece: Bytes) {
        let part = &mut self.parts[index];
        if part.lost.is_none() {
            part.piece = Some(piece);
            if let Some(waker) = part.waker.take() {
                waker.wake();
            }
        }
    }
}
