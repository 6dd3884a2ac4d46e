//! Request headers that handlers read.

use std::str;

use axum::extract::FromRequestParts;
use http::{HeaderMap, StatusCode, header::IF_MATCH, request::Parts};

use crate::{app::precondition::Precondition, error::Error};

/// Makes a `POST` safe to repeat: see the IETF draft "The Idempotency-Key HTTP Header Field".
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Maximum length of a key.
const KEY_BYTES: usize = 255;

/// The idempotency key of the request.
pub(crate) struct IdempotencyKey(pub(crate) Option<String>);

/// `If-Match`.
pub(crate) struct IfMatch(pub(crate) Precondition);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let Some(key) = single(&parts.headers, IDEMPOTENCY_KEY)? else { return Ok(Self(None)) };
        // The draft requires a quoted string, most clients send a bare one: both mean the same key.
        let bare = key.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(key);
        if bare.is_empty() || bare.len() > KEY_BYTES {
            let detail = format!("it has {} characters; send 1 to {KEY_BYTES}, such as a UUID", bare.len());
            return Err(invalid(IDEMPOTENCY_KEY, &detail));
        }
        if bare.contains(char::is_control) {
            return Err(invalid(IDEMPOTENCY_KEY, "it has a control character, such as a tab"));
        }
        Ok(Self(Some(bare.to_owned())))
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        match single(&parts.headers, IF_MATCH.as_str())? {
            None => Ok(Self(Precondition::None)),
            Some(value) => Precondition::parse(value).map(Self).ok_or_else(|| {
                invalid("if-match", "send the value of an earlier answer's ETag, with its quotes, as in \"g3\"")
            }),
        }
    }
}

fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid(name, "it occurs several times; send it once"));
    }
    value.to_str().map(Some).map_err(|_| invalid(name, "it has non-ASCII characters"))
}

fn invalid(name: &str, detail: &str) -> Error {
    Error::request(StatusCode::BAD_REQUEST, "invalid_header", format!("the header {name} cannot be used: {detail}"))
}
