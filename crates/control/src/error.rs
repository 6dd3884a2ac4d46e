//! The reasons for refusing a request, and the error responses.
//!
//! Code returns an [`Error`]; only [`IntoResponse`], the last step, deals with statuses and bodies. The body is always
//! `application/problem+json`. Errors that the caller cannot fix are logged here, once, with their chain of causes.

use api::{
    Fault, Problem,
    decode::{MORE_FAULTS, MOST_FAULTS},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use store::StoreError;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The request itself is at fault; one sentence says why.
    #[error("{detail}")]
    Request { status: StatusCode, code: &'static str, detail: String },
    /// The query parameters have faults.
    #[error("the query has {} faults", .0.len())]
    Query(Vec<Fault>),
    /// The payload is valid JSON, but has faults.
    #[error("the payload has {} faults", .0.len())]
    Payload(Vec<Fault>),
    /// The guard refused the request.
    #[error(transparent)]
    Guard(#[from] base::guard::Refusal),
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A limit was reached; a later retry may work.
    #[error("{0}")]
    Busy(String),
    /// A dependency of the control plane is unavailable; a retry may work.
    #[error("{detail}")]
    Away { code: &'static str, detail: String, source: Option<Source> },
    /// A bug in Modelway.
    #[error("{0}")]
    Defect(String),
}

/// Seconds until the caller should retry.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

impl Error {
    pub(crate) fn request(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self::Request { status, code, detail: detail.into() }
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::request(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// One fault of a payload.
    pub(crate) fn payload(pointer: &str, code: &str, detail: impl Into<String>) -> Self {
        Self::Payload(vec![Fault { pointer: pointer.to_owned(), code: code.to_owned(), detail: detail.into() }])
    }

    fn problem(self) -> (StatusCode, Problem) {
        let detail = self.to_string();
        let (status, code, detail, faults) = match self {
            Self::Request { status, code, .. } => (status, code, detail, Vec::new()),
            Self::Query(faults) => (StatusCode::BAD_REQUEST, "invalid_query", told("query", &faults), faults),
            Self::Payload(faults) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_payload", told("payload", &faults), faults)
            }
            Self::Guard(refusal) => (refusal.status(), refusal.code(), detail, Vec::new()),
            Self::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy", detail, Vec::new()),
            Self::Away { code, .. } => (StatusCode::SERVICE_UNAVAILABLE, code, detail, Vec::new()),
            Self::Defect(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", detail, Vec::new()),
            Self::Store(error) => {
                let (status, code) = of_store(&error);
                (status, code, store_detail(&error), Vec::new())
            }
        };
        let title = status.canonical_reason().unwrap_or("Refused").to_owned();
        (status, Problem { status: status.as_u16(), title, code: code.to_owned(), detail, faults })
    }
}

fn told(what: &str, faults: &[Fault]) -> String {
    match faults {
        [only] => format!("the {what} has a fault: {}", only.detail),
        [.., last] if last.code == MORE_FAULTS => {
            format!("the {what} has more than {MOST_FAULTS} faults; the first ones are listed under `faults`")
        }
        many => format!("the {what} has {} faults; each one is listed under `faults`", many.len()),
    }
}

fn of_store(error: &StoreError) -> (StatusCode, &'static str) {
    match error {
        StoreError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
        // The draft on Idempotency-Key requires 422: a retry with a different payload can never work.
        StoreError::Conflict { code: code @ "idempotency_key_reused", .. } => (StatusCode::UNPROCESSABLE_ENTITY, code),
        StoreError::Conflict { code, .. } => (StatusCode::CONFLICT, code),
        StoreError::Stale => (StatusCode::PRECONDITION_FAILED, "stale"),
        StoreError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "database_unavailable"),
        StoreError::TooNew { .. } => (StatusCode::SERVICE_UNAVAILABLE, "database_too_new"),
        StoreError::Fenced | StoreError::Corrupt { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

fn store_detail(error: &StoreError) -> String {
    match error {
        // The first cause is a text of the store, such as "the disk is full"; the causes below it are texts of the
        // driver.
        StoreError::Unavailable(cause) => format!("{error}: {cause}; repeat the request in a moment"),
        StoreError::Corrupt { .. } => format!("{error}; see the log of the server"),
        StoreError::NotFound { .. }
        | StoreError::Conflict { .. }
        | StoreError::Stale
        | StoreError::Fenced
        | StoreError::TooNew { .. } => error.to_string(),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let told = base::error::chain(&self);
        let (status, problem) = self.problem();
        match status {
            StatusCode::INTERNAL_SERVER_ERROR => tracing::error!(code = problem.code, "a request failed: {told}"),
            StatusCode::SERVICE_UNAVAILABLE => tracing::warn!(code = problem.code, "a request failed for now: {told}"),
            _ => tracing::debug!(%status, code = problem.code, "a request was refused: {told}"),
        }
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_away_is_a_503_that_says_why_and_when_to_ask_again() {
        let away = || Error::Store(StoreError::Unavailable(Box::new(std::io::Error::other("the disk is full"))));
        let (status, problem) = away().problem();
        assert_eq!((status.as_u16(), problem.code.as_str()), (503, "database_unavailable"));
        assert!(problem.detail.contains("the disk is full"), "{}", problem.detail);
        assert!(away().into_response().headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn a_single_fault_is_told_in_the_detail_too() {
        let (_, problem) = Error::payload("/replicas", "out_of_range", "-1 is not a whole number").problem();
        assert_eq!(problem.detail, "the payload has a fault: -1 is not a whole number");
        assert_eq!(problem.faults.len(), 1);
    }
}
