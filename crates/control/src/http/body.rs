//! Request bodies: JSON, with a maximum size and a timeout.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::{Shared, strict_json};
use crate::error::Error;

/// A JSON document.
pub(crate) struct Json(pub(crate) Value);

/// A JSON merge patch (RFC 7396).
pub(crate) struct MergePatch(pub(crate) Value);

impl FromRequest<Shared> for Json {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, Error> {
        read(request, app, &["application/json"]).await.map(Self)
    }
}

impl FromRequest<Shared> for MergePatch {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, Error> {
        read(request, app, &["application/merge-patch+json", "application/json"]).await.map(Self)
    }
}

async fn read(request: Request, app: &Shared, types: &[&str]) -> Result<Value, Error> {
    let (head, body) = request.into_parts();
    check_type(&head.headers, types)?;
    let limit = app.config.max_body_bytes;
    check_length(&head.headers, limit)?;
    let bytes = tokio::time::timeout(app.config.body_timeout(), collect(body, limit)).await.map_err(|_| {
        let patience = app.config.body_timeout_ms;
        let detail = format!("the body did not arrive within {patience} ms (control.body_timeout_ms); send it faster");
        Error::request(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
    })??;
    if bytes.is_empty() {
        let detail = "the body is empty; send a JSON object";
        return Err(Error::request(StatusCode::BAD_REQUEST, "malformed_json", detail));
    }
    strict_json::read(&bytes).map_err(|error| {
        let code = if error.is_data() { "duplicate_field" } else { "malformed_json" };
        Error::request(StatusCode::BAD_REQUEST, code, format!("the body cannot be read as JSON: {error}"))
    })
}

/// The content type must match; it is also required, because a web page can send a request without one to other sites.
fn check_type(headers: &HeaderMap, types: &[&str]) -> Result<(), Error> {
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let essence = given.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    if essence.is_some_and(|essence| types.contains(&essence.as_str())) {
        return Ok(());
    }
    let found = given.map_or("it is absent".to_owned(), |value| format!("it is `{value}`"));
    let detail = format!("the content-type must be {}; {found}", types.join(" or "));
    Err(Error::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

fn check_length(headers: &HeaderMap, limit: usize) -> Result<(), Error> {
    let length =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return Err(too_large(limit));
    }
    Ok(())
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, Error> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(error) => {
            let detail = format!("the body is incomplete: {error}");
            Err(Error::request(StatusCode::BAD_REQUEST, "body_broken", detail))
        }
    }
}

fn too_large(limit: usize) -> Error {
    let detail = format!("the body is larger than {limit} bytes (control.max_body_bytes)");
    Error::request(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}
