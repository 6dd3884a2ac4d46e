//! Reads the body of a request as far as needed: short bodies completely, long ones partly.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::lane::Lane;
use crate::{
    admit::limits::Admission,
    config::Config,
    upstream::{
        body::{SendBody, StreamBody, StreamProgress, StreamState},
        split::Part,
    },
    wire::{
        alarm::Alarm,
        pace::Pace,
        refusal::Refusal,
        scan::{Found, Scanner},
    },
};

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Received {
    /// The whole body.
    Held(Bytes),
    /// Longer than the limit or the free memory for held bodies: what has arrived, the rest, and its maximum length.
    Long { head: Bytes, rest: Incoming, allowed: u64 },
    /// The messages for one model of a stream for several models.
    Part(Part),
}

impl Received {
    /// The part that has arrived.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Held(bytes) | Self::Long { head: bytes, .. } => bytes,
            Self::Part(_) => &[],
        }
    }

    /// The whole body, if it has arrived.
    pub(crate) fn held(&self) -> Option<&Bytes> {
        match self {
            Self::Held(bytes) => Some(bytes),
            Self::Long { .. } | Self::Part(_) => None,
        }
    }

    /// Whether it is forwarded while it arrives.
    pub(crate) fn streams(&self) -> bool {
        matches!(self, Self::Long { .. } | Self::Part(_))
    }

    /// The body to send, and, if it is forwarded while it arrives, its progress.
    pub(crate) fn into_sending(self, config: &Config) -> (SendBody, Option<Arc<StreamProgress>>) {
        match self {
            Self::Held(bytes) => (SendBody::held(bytes), None),
            Self::Part(part) => (SendBody::Part(part, None), None),
            Self::Long { head, rest, allowed } => {
                let stream = Box::new(StreamBody::new(head, rest, allowed, pace(config)));
                let progress = stream.progress();
                (SendBody::Stream(stream), Some(progress))
            }
        }
    }
}

/// The minimum rate of bodies.
fn pace(config: &Config) -> Pace {
    Pace::new(Duration::from_millis(config.body_idle_timeout_ms))
}

/// The body of a request with `announced` length, if any.
pub(crate) async fn body(
    lane: &Lane,
    mut body: Incoming,
    announced: Option<u64>,
    admission: &mut Admission,
    alarm: &mut Alarm,
) -> Result<Received, Refusal> {
    let config = &lane.gateway.config;
    let most = config.max_body_bytes;
    if announced.is_some_and(|length| length > most) {
        return Err(too_long(config));
    }
    if body.is_end_stream() {
        return Ok(Received::Held(Bytes::new()));
    }
    let holdable = config.buffer_body_bytes as u64;
    if announced.is_some_and(|length| length > holdable) {
        return Ok(Received::Long { head: Bytes::new(), rest: body, allowed: most });
    }
    let mut pieces = Pieces { first: None, all: BytesMut::new(), expected: announced.unwrap_or(0).min(holdable) };
    let mut length = 0_u64;
    let mut pace = pace(config);
    while let Some(frame) = next(&mut body, &mut pace, None, alarm, config).await? {
        let data = frame.into_data().unwrap_or_default();
        let room = admission.hold(data.len());
        length += data.len() as u64;
        if length > most {
            return Err(too_long(config));
        }
        pieces.add(data);
        if body.is_end_stream() {
            break;
        }
        if !room || length > holdable {
            return Ok(Received::Long { head: pieces.joined(), rest: body, allowed: most - length });
        }
    }
    Ok(Received::Held(pieces.joined()))
}

/// The beginning of a gRPC call: its model is known.
#[derive(Debug)]
pub(crate) struct FirstMessage {
    pub(crate) model: String,
    pub(crate) version: Option<String>,
    pub(crate) body: Received,
}

/// The body of a gRPC call until its model is known and, if it is short and does not stream, to its end. What streams is
/// never held. `until` is when the caller's own time is up. `None`: a stream on which nothing came.
pub(crate) async fn call(
    lane: &Lane,
    mut body: Incoming,
    encoding: Option<&[u8]>,
    streams: bool,
    until: Option<Instant>,
    admission: &mut Admission,
    alarm: &mut Alarm,
) -> Result<Option<FirstMessage>, Refusal> {
    let config = &lane.gateway.config;
    let mut pieces = Pieces { first: None, all: BytesMut::new(), expected: 0 };
    let mut scanner = Scanner::new(encoding);
    let mut room = true;
    let mut length = 0_usize;
    let mut pace = pace(config);
    loop {
        let mut ended = true;
        if let Some(frame) = next(&mut body, &mut pace, until, alarm, config).await? {
            let data = frame.into_data().unwrap_or_default();
            room &= admission.hold(data.len());
            length += data.len();
            scanner.read(&data)?;
            pieces.expected = (length + scanner.left()).min(config.buffer_body_bytes) as u64;
            pieces.add(data);
            ended = body.is_end_stream();
        }
        let full = !room || length > config.buffer_body_bytes;
        let (model, version) = match scanner.found() {
            Found::Model if ended || full || (streams && scanner.whole()) => (scanner.name(), scanner.version()),
            Found::More if ended && streams && length == 0 => return Ok(None),
            Found::More if ended => {
                let words = "the request ends in the middle of its message";
                return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
            }
            Found::More if full && length <= config.buffer_body_bytes => {
                let words = "the bodies of other requests fill gateway.buffer_total_bytes; try again";
                return Err(Refusal::unavailable(words));
            }
            Found::More if full => {
                let words = "the name of the model comes too late in the message; write its fields in order";
                return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
            }
            Found::Model | Found::More => continue,
        };
        let bytes = pieces.joined();
        let body = if ended && !streams {
            Received::Held(bytes)
        } else {
            let allowed = config.max_body_bytes.saturating_sub(length as u64);
            Received::Long { head: bytes, rest: body, allowed }
        };
        return Ok(Some(FirstMessage { model, version, body }));
    }
}

/// Pieces of a body. Usually the first one is the whole body; only a second one makes copying worth while.
struct Pieces {
    first: Option<Bytes>,
    all: BytesMut,
    /// Its length, as far as it is known.
    expected: u64,
}

impl Pieces {
    fn add(&mut self, data: Bytes) {
        if self.first.is_none() && self.all.is_empty() {
            self.first = Some(data);
            return;
        }
        if let Some(first) = self.first.take() {
            let expected = usize::try_from(self.expected).unwrap_or(0);
            self.all.reserve(expected.max(first.len() + data.len()));
            self.all.extend_from_slice(&first);
        }
        self.all.extend_from_slice(&data);
    }

    fn joined(self) -> Bytes {
        self.first.unwrap_or_else(|| self.all.freeze())
    }
}

async fn next(
    body: &mut Incoming,
    pace: &mut Pace,
    until: Option<Instant>,
    alarm: &mut Alarm,
    config: &Config,
) -> Result<Option<Frame<Bytes>>, Refusal> {
    let frame = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(Ok(frame)),
        Poll::Pending => {
            let patience = pace.wait();
            let is_late = until.is_some_and(|until| until <= patience);
            alarm.set(until.filter(|_| is_late).unwrap_or(patience));
            alarm.poll(cx).map(|()| Err(if is_late { Refusal::late() } else { too_slow(config) }))
        }
    });
    match frame.await? {
        None => Ok(None),
        Some(Ok(frame)) => {
            pace.came(frame.data_ref().map_or(0, Bytes::len));
            Ok(Some(frame))
        }
        Some(Err(error)) => Err(Refusal::new(StatusCode::BAD_REQUEST, base::serve::broken::words(&error)).closing()),
    }
}

fn too_long(config: &Config) -> Refusal {
    let words = format!("the body is longer than {} bytes (gateway.max_body_bytes)", config.max_body_bytes);
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words).closing()
}

fn too_slow(config: &Config) -> Refusal {
    let words = format!(
        "the body arrives too slowly: nothing for {} ms (gateway.body_idle_timeout_ms), or less than 4 KiB a second",
        config.body_idle_timeout_ms
    );
    Refusal::new(StatusCode::REQUEST_TIMEOUT, words).closing()
}

/// Whether the client, not the replica, ended a request whose body was forwarded while it arrived.
pub(crate) fn blame_client(progress: &StreamProgress, config: &Config) -> Option<Refusal> {
    match progress.state() {
        StreamState::TooLong => Some(too_long(config)),
        StreamState::Stalled => Some(too_slow(config)),
        StreamState::Broken => {
            Some(Refusal::new(StatusCode::BAD_REQUEST, "the body of the request ended early").closing())
        }
        StreamState::Open | StreamState::Done => None,
    }
}
