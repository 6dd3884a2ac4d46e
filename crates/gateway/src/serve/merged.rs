//! The answers of several models on one stream, each message whole.
//!
//! Answers of one model come in its replica's order, those of different models as they are made. The stream ends when
//! the client's has ended and every replica's, or with the first that ends badly.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::{HeaderMap, Response, StatusCode, header::CONTENT_LENGTH, response::Parts};
use http_body::{Body, Frame};

use crate::{
    forward::reply::OutBody,
    upstream::split::{Model, News, Part, Split},
    wire::{
        grpc::{self, PREFIX},
        refusal::Refusal,
    },
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Polled = Option<Result<Frame<Bytes>, BoxError>>;
type Opened = Result<Response<OutBody>, Refusal>;
/// Has a replica of a model answer its part of the stream.
pub(crate) type Opener = Box<dyn Fn(Model, Part) -> BoxFuture<'static, Opened> + Send>;

/// The answers of several models.
pub(crate) struct Merged {
    split: Split,
    open: Opener,
    opening: FuturesUnordered<BoxFuture<'static, (Model, Option<String>, Opened)>>,
    /// Of the first answer.
    head: Option<Parts>,
    bodies: Vec<(OutBody, Boundary)>,
    /// The one that is in the middle of a message.
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
    /// A stream whose first message is for `model`.
    pub(crate) fn new(split: Split, open: Opener, model: Model) -> Self {
        let mut merged = Self {
            split,
            open,
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

    /// The head of the first answer, with the replica that gives it; `None` if no replica is asked for the first message.
    pub(crate) async fn head(&mut self) -> Option<Parts> {
        poll_fn(|cx| {
            self.hear(cx);
            match self.head.take() {
                None if self.lost.is_empty() && self.listens => Poll::Pending,
                None if self.lost.is_empty() && !self.opening.is_empty() => Poll::Pending,
                head => Poll::Ready(head),
            }
        })
        .await
    }

    /// `id` is that of the message that was read, if one was.
    fn begin(&mut self, model: Model, part: Part, id: Option<String>) {
        let opening = (self.open)(model.clone(), part);
        self.opening.push(Box::pin(async move { (model, id, opening.await) }));
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Polled> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            if self.pen.is_none() {
                self.hear(cx);
                if let Some((id, why)) = self.lost.pop_front() {
                    return Poll::Ready(Some(Ok(Frame::data(grpc::frame(&error(&id, &why))))));
                }
            }
            if self.bodies.is_empty() && self.opening.is_empty() && (!self.listens || self.one_ended) {
                let fault = self.split.fault().map(|words| grpc::refuse(&Refusal::new(StatusCode::BAD_REQUEST, words)));
                return self.finish(fault.unwrap_or_else(grpc::all_well));
            }
            let (index, polled) = ready!(self.poll_bodies(cx));
            match polled {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let within = self.bodies[index].1.pass(&data);
                        (self.pen, self.turn) = (within.then_some(index), index + 1);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.remove(index);
                        if grpc::http_code(&trailers) != Some(StatusCode::OK) {
                            return self.finish(trailers);
                        }
                    }
                },
                Some(Err(error)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None if self.pen == Some(index) => {
                    self.over = true;
                    return Poll::Ready(Some(Err("a replica ended within a message".into())));
                }
                None => self.remove(index),
            }
        }
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

    /// Opens what new models need, and takes over what is open.
    fn hear(&mut self, cx: &mut Context<'_>) {
        loop {
            while self.listens && self.lost.is_empty() {
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
                    let (mut head, body) = response.into_parts();
                    // It is the length of one of the answers.
                    head.headers.remove(CONTENT_LENGTH);
                    self.head.get_or_insert(head);
                    self.bodies.push((body, Boundary::default()));
                }
                Err(refusal) => {
                    self.split.lose(&model, &refusal.words);
                    self.lost.extend(id.map(|id| (id, refusal.words)));
                }
            }
        }
    }

    /// The next frame of whoever has one, in turn; of the one within a message while there is one.
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

/// Where in a stream of messages its reader stands.
#[derive(Debug, Default)]
struct Boundary {
    prefix: [u8; PREFIX],
    have: usize,
    left: usize,
}

impl Boundary {
    /// Passes over some bytes. Says whether they end within a message.
    fn pass(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            if self.left == 0 {
                let (more, rest) = data.split_at(data.len().min(PREFIX - self.have));
                self.prefix[self.have..self.have + more.len()].copy_from_slice(more);
                self.have += more.len();
                data = rest;
                if self.have == PREFIX {
                    let [_, length @ ..] = self.prefix;
                    (self.have, self.left) = (0, u32::from_be_bytes(length) as usize);
                }
            } else {
                let step = data.len().min(self.left);
                (data, self.left) = (&data[step..], self.left - step);
            }
        }
        self.have > 0 || self.left > 0
    }
}

/// `ModelStreamInferResponse` with an error and the id of the request that it is for.
fn error(id: &str, why: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    field(3, id.as_bytes(), &mut answer);
    // The only answer to its request, as Triton says that.
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
                assert_eq!(boundary.pass(piece), !ends.contains(&at), "after {at} bytes in pieces of {size}");
            }
        }
    }
}
