//! Error responses of the gateway.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An error response.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) words: String,
    /// Seconds after which a retry may help.
    pub(crate) retry_after: Option<u32>,
    /// The supported methods.
    pub(crate) allow: Option<&'static str>,
    /// The client may still be sending.
    pub(crate) close: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status, words: words.into(), retry_after: None, allow: None, close: false }
    }

    /// 405: the path supports other methods.
    pub(crate) fn method(path: &str, allow: &'static str, used: &Method) -> Self {
        let words = api::words::wrong_method(path, allow, used.as_str());
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, words) }
    }

    /// 503 with a request to retry.
    pub(crate) fn unavailable(words: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, words) }
    }

    /// The caller's own time for its call is up.
    pub(crate) fn late() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, api::words::CALL_LATE)
    }

    /// Closes the connection after the answer.
    pub(crate) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// As HTTP: `{"error": "…"}` of the Open Inference Protocol.
    pub(crate) fn into_response(self) -> Response<Bytes> {
        let mut response = json(self.status, error_body(&self.words));
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(method) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(method));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// `{"error": "…"}`.
pub(crate) fn error_body(words: &str) -> String {
    serde_json::json!({ "error": words }).to_string()
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}
