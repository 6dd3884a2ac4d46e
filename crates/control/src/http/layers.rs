//! Middleware for every request: metrics, an id, the check for web pages, and a timeout.

use std::{panic::AssertUnwindSafe, time::Instant};

use api::request_id;
use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS},
};

use super::Shared;
use crate::error::Error;

const REQUEST_ID: HeaderName = HeaderName::from_static(request_id::HEADER);

/// The route label of a request with an unknown path.
const UNMATCHED: &str = "unmatched";

/// Counts and times the request, gives it an id, and turns a panic into an error response.
pub(crate) async fn observe(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let id = id_of(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    app.metrics.in_flight.inc();
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    app.metrics.in_flight.dec();
    let mut response = answered.unwrap_or_else(|_| {
        // The panic itself is already in the log, with its location.
        Error::Defect(format!("{method} {route} failed because of a bug in Modelway; please report it")).into_response()
    });
    let (took, code) = (started.elapsed(), response.status().as_u16());
    app.metrics.answered(&method, route, code, took);
    tracing::debug!(%method, route, code, took_us = took.as_micros(), request_id = ?id, "answered");
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    // The page at /docs can change data, so no other page may embed it in a frame and trick the user into clicking.
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Refuses requests that a web page of another site sent. See [`base::guard`].
pub(crate) async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    match base::guard::check(request.headers(), authority, &app.config.allowed_hosts) {
        Ok(()) => next.run(request).await,
        Err(refusal) => Error::Guard(refusal).into_response(),
    }
}

/// Cancels a request whose answer does not begin in time. Streams that have begun are not affected.
pub(crate) async fn limit_time(State(app): State<Shared>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.config.request_timeout(), next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let patience = app.config.request_timeout_ms;
            let detail = format!(
                "no answer within {patience} ms (control.request_timeout_ms); it is unknown whether the change was made, so repeat it with the same Idempotency-Key"
            );
            Error::Away { code: "timeout", detail, source: None }.into_response()
        }
    }
}

/// The id from the caller if it is valid, otherwise a new one.
fn id_of(headers: &HeaderMap) -> HeaderValue {
    let fits = |id: &&HeaderValue| request_id::is_plain(id.as_bytes());
    headers.get(REQUEST_ID).filter(fits).cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::now_v7().to_string();
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("unnamed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_request_id_is_kept_if_it_can_be_passed_on() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, id.parse().expect("a header value"));
            id_of(&headers)
        };
        assert_eq!(with("abc-1"), "abc-1");
        assert_ne!(with("has spaces"), "has spaces");
        assert_ne!(with("a\"b{}"), "a\"b{}");
        assert_ne!(with(&"x".repeat(129)), "x".repeat(129).as_str());
        assert_eq!(id_of(&HeaderMap::new()).len(), 36);
    }
}
