//! The gateway's own answers, and the headers that every answer carries.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, EXPECT, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

use crate::{
    app::{App, write_hex},
    body::OutBody,
};

pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) static DEPLOYMENT: HeaderName = HeaderName::from_static("x-modelway-deployment");
pub(crate) static REVISION: HeaderName = HeaderName::from_static("x-modelway-revision");
pub(crate) static REPLICA: HeaderName = HeaderName::from_static("x-modelway-replica");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The longest id of a request that is taken over.
const LONGEST_ID: usize = 128;

/// A refusal: what the client is told.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) words: String,
    /// Seconds after which asking again may help.
    pub(crate) retry_after: Option<u32>,
    /// The only method that would do.
    pub(crate) allow: Option<&'static str>,
    /// The client may still be sending.
    pub(crate) close: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status, words: words.into(), retry_after: None, allow: None, close: false }
    }

    /// 503 that asks to try again.
    pub(crate) fn unavailable(words: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, words) }
    }

    /// Closes the connection after the answer.
    pub(crate) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// As HTTP: `{"error": "…"}` of the Open Inference Protocol.
    pub(crate) fn into_response(self) -> Response<OutBody> {
        let body = serde_json::json!({ "error": self.words }).to_string();
        let mut response = json(self.status, body);
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

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<OutBody> {
    let mut response = Response::new(OutBody::own(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The id of a request: the client's, if it is short and plain, else a new one.
pub(crate) fn request_id(headers: &HeaderMap, app: &App) -> HeaderValue {
    match headers.get(&REQUEST_ID) {
        Some(given) if is_plain(given.as_bytes()) => given.clone(),
        Some(_) | None => {
            let mut id = [0; 32];
            let mut count = [0; 16];
            write_hex(app.ids.fetch_add(1, Ordering::Relaxed), &mut count);
            id[..16].copy_from_slice(&app.id_prefix);
            id[16..].copy_from_slice(&count);
            HeaderValue::from_bytes(&id).unwrap_or(crate::replica::UNWRITABLE)
        }
    }
}

fn is_plain(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= LONGEST_ID
        && id.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'='))
}

/// Removes the headers that concern one connection only (RFC 9110, 7.6.1).
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Nearly always there is none, and looking at each name once is cheaper than asking for each of these.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let fixed: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in named.into_iter().chain(fixed) {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    match name.as_str().len() {
        2 => *name == TE,
        // The gateway has answered it already.
        6 => *name == EXPECT,
        7 => *name == TRAILER || *name == UPGRADE,
        10 => *name == CONNECTION || name.as_str() == "keep-alive",
        16 => name.as_str() == "proxy-connection",
        17 => *name == TRANSFER_ENCODING,
        18 => name.as_str() == "proxy-authenticate",
        19 => name.as_str() == "proxy-authorization",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_stay_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("content-type", "a/b"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
    }

    #[test]
    fn an_id_that_could_forge_a_log_line_is_not_taken_over() {
        assert!(is_plain(b"7f3c-a_b.c:1/2+3="));
        for wrong in [&b""[..], b"a b", b"a\"b", b"{}", &[b'a'; 129]] {
            assert!(!is_plain(wrong), "{wrong:?}");
        }
    }
}
