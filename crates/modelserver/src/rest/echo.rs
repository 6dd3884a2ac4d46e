//! What an answer repeats of its request's headers, or says because of them: the request's id, and CloudEvents.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use api::path::{self, Target};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::Answer;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An id that is longer is not repeated.
const LONGEST_ID: usize = 1 << 10;

/// The header that makes a request a CloudEvent in binary mode.
const CLOUD_EVENT: HeaderName = HeaderName::from_static("ce-specversion");

/// What is to be said.
#[derive(Debug)]
pub(super) struct Echo {
    id: Option<HeaderValue>,
    /// The model that a CloudEvent was sent to.
    event: Option<String>,
}

impl Echo {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        let id = headers.get(&REQUEST_ID).filter(|id| id.len() <= LONGEST_ID).cloned();
        let event = headers.contains_key(&CLOUD_EVENT).then(|| match path::read(request.uri().path()) {
            Ok(Target::Model(model)) => model.name.into_owned(),
            Ok(Target::Other(_)) | Err(_) => String::new(),
        });
        Self { id, event }
    }

    pub(super) fn onto(self, mut answer: Answer) -> Answer {
        if let Some(id) = self.id {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        if let Some(model) = self.event.filter(|model| !model.is_empty()) {
            tell_event(answer.headers_mut(), &model);
        }
        answer
    }
}

/// Says that an answer is an event too, in the words of KServe, which others filter by.
fn tell_event(headers: &mut HeaderMap, model: &str) {
    static STARTED: OnceLock<u128> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = STARTED.get_or_init(|| std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos()));
    // No two events of one source have the same id.
    let id = format!("{:x}-{started:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let escaped = percent_encoding::utf8_percent_encode(model, percent_encoding::NON_ALPHANUMERIC);
    for (name, value) in [
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", id),
        ("ce-type", "io.kserve.inference.response".to_owned()),
        (
            "ce-source",
            format!("io.kserve.inference.{}", if model.is_ascii() { model.to_owned() } else { escaped.to_string() }),
        ),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
