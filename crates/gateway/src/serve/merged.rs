//! Merges the answers of several models on one stream; each message stays whole.
//!
//! Answers of one model come in the order of its replica, those of different models as they are produced. The stream
//! ends when the client and all replicas have ended theirs, or with the first failure.
//!
//! The header of the stream is sent once and names one compression. So all replicas are asked for the same one.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use base::error::chain;
use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_LENGTH, response::Parts};
use http_body::{Body, Frame};

use crate::{
    forward::reply::OutBody,
    upstream::split::{Model, News, Part, Split},
    wire::{
        grpc::{self, PREFIX},
        refusal::Refusal,
    },
};

/// Maximum number of unanswered messages for models that cannot be reached.
const MOST_LOST: usize = 64;
const CUT: &str = "a replica ended within a message";

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Polled = Option<Result<Frame<Bytes>, BoxError>>;
type Opened = Result<Response<OutBody>, Refusal>;
/// Sends a model's part of the stream to a replica.
pub(crate) type Opener = Box<dyn Fn(Model, Part) -> BoxFuture<'static, Opened> + Send>;

/// The answers of several models.
pub(crate) struct Merged {
    split: Split,
    open: Opener,
    opening: FuturesUnordered<BoxFuture<'static, (Model, Option<String>, Opened)>>,
    /// The requested compression of every replica.
    encoding: Option<HeaderValue>,
    /// Of the first answer.
    head: Option<Parts>,
    bodies: Vec<(OutBody, Boundary)>,
    /// The answer that is within a message.
    pen: Option<usize>,
    turn: usize,
    lost: VecDeque<(String, String)>,
    /// The client may still send.
    listens: bool,
    /// A replica has ended its answers.
    one_ended: bool,
    over: bool,
}

impl fmt::Debug for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merged").field("bodies", &self.bodies.len()).finish_non_exhaustive()
    }
}

impl Merged {
    /// A stream whose first message is for `model`. Answers may be compressed with `encoding`.
    pub(crate) fn new(split: Split, open: Opener, model: Model, encoding: Option<HeaderValue>) -> Self {
        let mut merged = Self {
            split,
            open,
            encoding,
            opening: FuturesUnordered::new(),
            head: None,
            bodies: Vec::new(),
            pen: None,
            turn: 0,
            lost: VecDeque::new(),
            listens: true,
            one_ended: false,
            over: false,
        };
        let part = merged.split.part(model.clone());
        merged.begin(model, part, None);
        merged
    }

    /// The header of the stream: that of the first answer, with its replica, or one of the gateway if no replica gets
    /// the first message.
    pub(crate) async fn head(&mut self) -> Response<()> {
        let first = poll_fn(|cx| {
            self.hear(cx);
            match self.head.take() {
                None if self.lost.is_empty() && self.listens => Poll::Pending,
                None if self.lost.is_empty() && !self.opening.is_empty() => Poll::Pending,
                head => Poll::Ready(head),
            }
        })
        .await;
        let mut head = first.map_or_else(|| grpc::response(()), |parts| Response::from_parts(parts, ()));
        // It is the length of one of the answers.
        head.headers_mut().remove(CONTENT_LENGTH);
        head.headers_mut().remove(&grpc::ENCODING);
        if let Some(encoding) = &self.encoding {
            head.headers_mut().insert(grpc::ENCODING.clone(), encoding.clone());
        }
        head
    }

    /// `id` is that of the message that was read, if any.
    fn begin(&mut self, model: Model, part: Part, id: Option<String>) {
        let opening = (self.open)(model.clone(), part);
        self.opening.push(Box::pin(async move { (model, id, opening.await) }));
    }

    /// The rest of the stream is not sent; what is recorded of it is `status`.
    pub(crate) fn gave_up(&mut self, status: StatusCode) {
        for (body, _) in &mut self.bodies {
            body.gave_up(status);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            self.hear(cx);
            if self.pen.is_none()
                && let Some((id, why)) = self.lost.pop_front()
            {
                return Poll::Ready(Some(Ok(Frame::data(grpc::frame(&error(&id, &why))))));
            }
            if self.bodies.is_empty() && self.opening.is_empty() && (!self.listens || self.one_ended) {
                return match self.split.fault() {
                    Some(words) => self.refuse(StatusCode::BAD_REQUEST, &words),
                    None => self.finish(grpc::all_well()),
                };
            }
            let (index, polled) = ready!(self.poll_bodies(cx));
            match polled {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let Some(within) = self.bodies[index].1.pass(&data) else {
                            return self.refuse(
                                StatusCode::BAD_GATEWAY,
                                "a replica compresses its answers without being asked",
                            );
                        };
                        (self.pen, self.turn) = (within.then_some(index), index + 1);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        if grpc::http_code(&trailers) != Some(StatusCode::OK) {
                            return self.finish(trailers);
                        }
                        if self.pen == Some(index) {
                            return self.refuse(StatusCode::BAD_GATEWAY, CUT);
                        }
                        self.remove(index);
                    }
                },
                Some(Err(error)) => return self.refuse(StatusCode::BAD_GATEWAY, &chain(&*error)),
                None if self.pen == Some(index) => return self.refuse(StatusCode::BAD_GATEWAY, CUT),
                None => self.remove(index),
            }
        }
    }

    fn refuse(&mut self, status: StatusCode, words: &str) -> Poll<Polled> {
        self.finish(grpc::trailers(&Refusal::new(status, words)))
    }

    fn finish(&mut self, trailers: HeaderMap) -> Poll<Polled> {
        self.over = true;
        self.bodies.clear();
        self.opening.clear();
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn remove(&mut self, index: usize) {
        self.bodies.remove(index);
        (self.pen, self.one_ended) = (None, true);
    }

    /// Opens the parts of new models, and adds the ones that were opened.
    fn hear(&mut self, cx: &mut Context<'_>) {
        loop {
            while self.listens && self.lost.len() < MOST_LOST {
                match self.split.poll_news(cx) {
                    Poll::Pending => break,
                    Poll::Ready(None) => self.listens = false,
                    Poll::Ready(Some(News::Lost(id, why))) => self.lost.push_back((id, why)),
                    Poll::Ready(Some(News::Model(model, part, id))) => self.begin(model, part, Some(id)),
                }
            }
            let Poll::Ready(Some((model, id, opened))) = self.opening.poll_next_unpin(cx) else { return };
            match opened {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let packs = self.encoding.is_some() && head.headers.get(&grpc::ENCODING) == self.encoding.as_ref();
                    self.head.get_or_insert(head);
                    self.bodies.push((body, Boundary { packs, ..Boundary::default() }));
                }
                Err(refusal) => {
                    self.split.lose(&model, &refusal.words);
                    self.lost.extend(id.map(|id| (id, refusal.words)));
                }
            }
        }
    }

    /// The next frame, from each answer in turn; within a message, only from that answer.
    fn poll_bodies(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Polled)> {
        let count = self.bodies.len();
        let order = match self.pen {
            Some(index) => index..index + 1,
            None => self.turn..self.turn + count,
        };
        for index in order.map(|index| index % count.max(1)) {
            if let Poll::Ready(polled) = Pin::new(&mut self.bodies[index].0).poll_frame(cx) {
                return Poll::Ready((index, polled));
            }
        }
        Poll::Pending
    }
}

/// The position of a reader in a stream of messages.
#[derive(Debug, Default)]
struct Boundary {
    /// Whether a message may be compressed.
    packs: bool,
    prefix: [u8; PREFIX],
    have: usize,
    left: usize,
}

impl Boundary {
    /// Skips some bytes. Returns whether they end within a message; `None` if a message is compressed that must not be.
    fn pass(&mut self, mut data: &[u8]) -> Option<bool> {
        while !data.is_empty() {
            if self.left == 0 {
                let (more, rest) = data.split_at(data.len().min(PREFIX - self.have));
                self.prefix[self.have..self.have + more.len()].copy_from_slice(more);
                self.have += more.len();
                data = rest;
                if self.have == PREFIX {
                    let [packed, length @ ..] = self.prefix;
                    if packed != 0 && !self.packs {
                        return None;
                    }
                    (self.have, self.left) = (0, u32::from_be_bytes(length) as usize);
                }
            } else {
                let step = data.len().min(self.left);
                (data, self.left) = (&data[step..], self.left - step);
            }
        }
        Some(self.have > 0 || self.left > 0)
    }
}

/// `ModelStreamInferResponse` with an error and the id of its request.
fn error(id: &str, why: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    field(3, id.as_bytes(), &mut answer);
    // It is the only answer to its request; this is Triton's form for that.
    let mut last = Vec::new();
    field(1, b"triton_final_response", &mut last);
    field(2, &[0x08, 1], &mut last);
    field(4, &last, &mut answer);
    let mut message = Vec::new();
    field(1, why.as_bytes(), &mut message);
    field(2, &answer, &mut message);
    message
}

fn field(number: u8, bytes: &[u8], into: &mut Vec<u8>) {
    into.push(number << 3 | 2);
    let mut length = bytes.len();
    while length > 0x7f {
        into.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    into.push(u8::try_from(length).unwrap_or(0));
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_where_their_prefixes_say_however_they_arrive() {
        let stream = [&grpc::frame(b"one")[..], &grpc::frame(b""), &grpc::frame(&[7; 300])].concat();
        let ends = [8, 13, 318];
        for size in [1, 2, 7, 400] {
            let (mut boundary, mut at) = (Boundary::default(), 0);
            for piece in stream.chunks(size) {
                at += piece.len();
                assert_eq!(boundary.pass(piece), Some(!ends.contains(&at)), "after {at} bytes in pieces of {size}");
            }
        }
    }
}
