//! The id of a request, which its answer repeats.

use api::request_id;
use http::{HeaderName, HeaderValue, Request};

use super::answer::Answer;

const REQUEST_ID: HeaderName = HeaderName::from_static(request_id::HEADER);

/// The id to repeat.
#[derive(Debug)]
pub(super) struct Echo {
    id: Option<HeaderValue>,
}

impl Echo {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self { id: request.headers().get(&REQUEST_ID).filter(|id| request_id::is_plain(id.as_bytes())).cloned() }
    }

    pub(super) fn onto(self, mut answer: Answer) -> Answer {
        if let Some(id) = self.id {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        answer
    }
}
