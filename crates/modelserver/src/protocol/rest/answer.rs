//! Answers and error responses.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use api::{replica::NOT_BEGUN_HEADER, words};
use bytes::Bytes;
use futures::{FutureExt as _, Stream};
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use inference::{IGNORED_FIELDS, Ignored};
use serde::Serialize;

use crate::{
    error::InferError,
    metrics::ModelMetrics,
    protocol::budget::{Budget, Spent},
};

/// The body of an answer: in one piece, in several pieces, or for gRPC.
pub(crate) enum Body {
    /// The whole body.
    Full(Full<Bytes>),
    /// Pieces; each is created when the previous one has been read.
    Pieces(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
    /// A message and trailers.
    Grpc(tonic::body::Body),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Pieces(_) => "Pieces",
            Self::Grpc(_) => "Grpc",
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match self.get_mut() {
            Self::Full(body) => {
                Pin::new(body).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(|never| match never {})))
            }
            Self::Pieces(pieces) => pieces.as_mut().poll_next(context).map(|piece| piece.map(|p| Ok(Frame::data(p)))),
            Self::Grpc(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_end_stream(),
            Self::Pieces(_) => false,
            Self::Grpc(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Pieces(_) => SizeHint::default(),
            Self::Grpc(body) => body.size_hint(),
        }
    }
}

pub(crate) type Answer = Response<Body>;

/// The result of a handler.
pub(super) type Answered = Result<Answer, Refusal>;

/// Maximum number of characters of a reason; the traceback of a model fits.
const LONGEST_REASON: usize = 16_384;

/// Lists the ignored fields of a request in a header, and counts them.
pub(super) fn naming(ignored: &Ignored, metrics: &ModelMetrics, answered: Answered) -> Answered {
    let Some(names) = ignored.header().and_then(|names| HeaderValue::try_from(names).ok()) else { return answered };
    metrics.ignored(ignored.count());
    let header = (HeaderName::from_static(IGNORED_FIELDS), names);
    match answered {
        Ok(mut answer) => {
            answer.headers_mut().extend([header]);
            Ok(answer)
        }
        Err(mut refusal) => {
            refusal.headers.push(header);
            Err(refusal)
        }
    }
}

/// An error response, in the form of the protocol.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    reason: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    client_left: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), headers: Vec::new(), client_left: false }
    }

    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    pub(super) fn not_found(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, reason)
    }

    pub(super) fn method(used: &Method, path: &str, allowed: &[Method]) -> Self {
        let allowed: Vec<_> = allowed.iter().map(Method::as_str).collect();
        let allowed = allowed.join(", ");
        // CONNECT has none.
        let path = if path.is_empty() { "/" } else { path };
        let mut refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, words::wrong_method(path, &allowed, used.as_str()));
        refusal.headers.extend(HeaderValue::from_str(&allowed).ok().map(|value| (ALLOW, value)));
        refusal
    }

    /// The rest of the body will not be read, so the connection cannot be reused.
    pub(super) fn closing(mut self) -> Self {
        self.headers.push((CONNECTION, HeaderValue::from_static("close")));
        self
    }

    /// The same request may be accepted later, or elsewhere: nothing of it was begun.
    pub(super) fn later(mut self) -> Self {
        self.headers.push((RETRY_AFTER, HeaderValue::from_static("1")));
        self.headers.push((HeaderName::from_static(NOT_BEGUN_HEADER), HeaderValue::from_static("1")));
        self
    }

    /// There is no memory for an answer. Not `later`, because the model has run, and a client must know that before it
    /// retries.
    pub(super) fn no_memory_for_answer(spent: Spent) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, spent.to_string());
        refusal.headers.push((RETRY_AFTER, HeaderValue::from_static("1")));
        refusal
    }

    /// There is no memory for the body of a request now.
    pub(super) fn no_memory(spent: Spent) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, spent.to_string()).later()
    }

    /// The client disconnected before its body was complete; nobody reads this.
    pub(super) fn of_client_that_left(mut self) -> Self {
        self.client_left = true;
        self
    }

    /// The value of `error_type` in the metrics for a body that was not read.
    pub(super) fn error_type(&self) -> &'static str {
        if self.client_left {
            return "client_left";
        }
        match self.status {
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::REQUEST_TIMEOUT => "slow_body",
            StatusCode::SERVICE_UNAVAILABLE => "memory_full",
            _ => "invalid_input",
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        #[derive(Serialize)]
        struct Error<'e> {
            error: &'e str,
        }
        // Reasons quote requests, which may contain a megabyte.
        let end = self.reason.char_indices().nth(LONGEST_REASON).map(|(end, _)| end);
        let shown = end.map(|end| format!("{}…", &self.reason[..end]));
        let error = shown.as_deref().unwrap_or(&self.reason);
        let body = serde_json::to_vec(&Error { error }).unwrap_or_default();
        let mut answer = with_status(self.status, bytes("application/json", body.into()));
        answer.headers_mut().extend(self.headers);
        answer
    }
}

impl From<InferError> for Refusal {
    fn from(error: InferError) -> Self {
        let status = match &error {
            InferError::Invalid(_) => StatusCode::BAD_REQUEST,
            InferError::NotFound(_) => StatusCode::NOT_FOUND,
            InferError::NotReady(_)
            | InferError::QueueFull { .. }
            | InferError::MemoryFull(_)
            | InferError::TimedOut(_) => StatusCode::SERVICE_UNAVAILABLE,
            InferError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            InferError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let refusal = Self::new(status, error.to_string());
        let later = matches!(error, InferError::NotReady(_) | InferError::QueueFull { .. } | InferError::MemoryFull(_));
        if later { refusal.later() } else { refusal }
    }
}

/// An answer whose memory is counted until the client has read it, or an error if there is none.
pub(super) fn counted(budget: &Budget, answer: Answer) -> Answer {
    let (head, body) = answer.into_parts();
    let Body::Full(full) = body else { return Answer::from_parts(head, body) };
    if full.size_hint().lower() <= Budget::FREE {
        return Answer::from_parts(head, Body::Full(full));
    }
    match budget.keep(whole(full)) {
        Ok(kept) => Answer::from_parts(head, Body::Full(Full::new(kept))),
        Err(spent) => Refusal::no_memory_for_answer(spent).into_answer(),
    }
}

/// The bytes of an unread body: it is one piece.
fn whole(mut full: Full<Bytes>) -> Bytes {
    match full.frame().now_or_never().flatten().map(|frame| frame.map(Frame::into_data)) {
        Some(Ok(Ok(bytes))) => bytes,
        Some(Ok(Err(_)) | Err(_)) | None => Bytes::new(),
    }
}

/// An answer with another body, which `make` creates from its content type and bytes. A stream does not change.
pub(super) fn rewritten(answer: Answer, make: impl FnOnce(&str, &Bytes) -> Option<(&'static str, Bytes)>) -> Answer {
    let (mut head, body) = answer.into_parts();
    let Body::Full(full) = body else { return Answer::from_parts(head, body) };
    let before = whole(full);
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("application/octet-stream");
    let Some((kind, made)) = make(kind, &before) else {
        return Answer::from_parts(head, Body::Full(Full::new(before)));
    };
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Answer::from_parts(head, Body::Full(Full::new(made)))
}

/// The response to a request from a web page of another site. Its body is not read.
pub(super) fn not_admitted(status: StatusCode, words: String) -> Answer {
    Refusal::new(status, words).closing().into_answer()
}

pub(super) fn json<T: Serialize>(value: &T) -> Answered {
    match serde_json::to_vec(value) {
        Ok(body) => Ok(bytes("application/json", body.into())),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

pub(super) fn text(content_type: &'static str, text: String) -> Answer {
    bytes(content_type, text.into())
}

pub(super) fn bytes(content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Body::Full(Full::new(body)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// The methods of the whole server: what `OPTIONS *` asks for.
pub(super) fn methods() -> Answer {
    let mut answer = Response::new(Body::Full(Full::default()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(words::METHODS));
    answer
}

pub(super) fn with_status(status: StatusCode, mut answer: Answer) -> Answer {
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_memory_for_it_does_not_say_that_the_request_was_not_begun() {
        let large =
            |budget: usize| counted(&Budget::new(budget), bytes("application/json", vec![b' '; 1 << 20].into()));
        assert_eq!(large(2 << 20).status(), StatusCode::OK);
        let refused = large(1 << 16);
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(RETRY_AFTER), "{:?}", refused.headers());
        assert!(!refused.headers().contains_key(NOT_BEGUN_HEADER), "the model has run");
    }
}
