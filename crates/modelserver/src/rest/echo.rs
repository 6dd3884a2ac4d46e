//! The id of a request, which its answer repeats.

use http::{HeaderName, HeaderValue, Request};

use super::Answer;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An id that is longer is not repeated.
const LONGEST_ID: usize = 1 << 10;

/// What the answer repeats.
#[derive(Debug)]
pub(super) struct Echo {
    id: Option<HeaderValue>,
}

impl Echo {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        Self { id: request.headers().get(&REQUEST_ID).filter(|id| id.len() <= LONGEST_ID).cloned() }
    }

    pub(super) fn onto(self, mut answer: Answer) -> Answer {
        if let Some(id) = self.id {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        answer
    }
}
