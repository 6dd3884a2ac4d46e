//! gRPC's own words: its prefix and its statuses.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

use super::refusal::Refusal;

/// The inference service.
pub(crate) const SERVICE: &str = "inference.GRPCInferenceService";
/// The reflection service, and its name before it was final, which most clients still use.
pub(crate) const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
pub(crate) const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// The bytes before a message: a compression flag and its length.
pub(crate) const PREFIX: usize = 5;
/// The content type of every answer.
pub(crate) const KIND: HeaderValue = HeaderValue::from_static("application/grpc");
static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub(crate) static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(crate) static ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A `ServerMetadataResponse`.
pub(crate) fn server_metadata(extensions: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    let own = [(1_u8, "modelway"), (2, env!("CARGO_PKG_VERSION"))];
    for (field, text) in own.into_iter().chain(extensions.iter().map(|extension| (3, *extension))) {
        out.push(field << 3 | 2);
        out.push(u8::try_from(text.len()).unwrap_or(0));
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The HTTP status that corresponds to the gRPC status in headers or trailers, if there is one.
pub(crate) fn http_code(headers: &HeaderMap) -> Option<StatusCode> {
    Some(match headers.get(&STATUS)?.as_bytes() {
        b"0" => StatusCode::OK,
        b"1" | b"4" => StatusCode::GATEWAY_TIMEOUT,
        b"3" | b"9" | b"11" => StatusCode::BAD_REQUEST,
        b"5" => StatusCode::NOT_FOUND,
        b"7" => StatusCode::FORBIDDEN,
        b"8" => StatusCode::TOO_MANY_REQUESTS,
        b"12" => StatusCode::NOT_IMPLEMENTED,
        b"14" => StatusCode::SERVICE_UNAVAILABLE,
        b"16" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    })
}

fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "3",
        403 | 421 => "7",
        404 => "5",
        408 | 504 => "4",
        413 | 429 | 431 => "8",
        501 => "12",
        502 | 503 => "14",
        _ => "13",
    }
}

/// The compression for the answers of a call: that of its own messages, if the client accepts it too.
pub(crate) fn answer_encoding(headers: &HeaderMap) -> Option<HeaderValue> {
    let own = headers.get(&ENCODING)?;
    let names = headers.get_all(&ACCEPT_ENCODING).iter().flat_map(|names| names.as_bytes().split(|byte| *byte == b','));
    let is_read = names.map(<[u8]>::trim_ascii).any(|name| name == own.as_bytes());
    (is_read && own != "identity").then(|| own.clone())
}

/// An error as a gRPC status: the headers of an answer without a message.
pub(crate) fn refuse(refusal: &Refusal) -> HeaderMap {
    let mut headers = trailers(refusal);
    headers.insert(CONTENT_TYPE, KIND);
    headers
}

/// An error as a gRPC status after messages.
pub(crate) fn trailers(refusal: &Refusal) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(STATUS.clone(), HeaderValue::from_static(grpc_status(refusal.status)));
    let mut words = String::with_capacity(refusal.words.len());
    for byte in refusal.words.bytes() {
        // Non-printable characters and `%` itself are percent-encoded.
        match byte {
            b' '..=b'~' if byte != b'%' => words.push(char::from(byte)),
            _ => words.push_str(&format!("%{byte:02X}")),
        }
    }
    if let Ok(words) = HeaderValue::from_str(&words)
        && !words.is_empty()
    {
        headers.insert(MESSAGE.clone(), words);
    }
    headers
}

/// The header of an answer.
pub(crate) fn response<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, KIND);
    response
}

/// A message with its prefix.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + PREFIX);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// The trailers of a successful answer.
pub(crate) fn all_well() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS.clone(), HeaderValue::from_static("0"));
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_no_header_can_hold_are_encoded() {
        let headers = refuse(&Refusal::new(StatusCode::NOT_FOUND, "100 % größer\n"));
        assert_eq!(headers["grpc-status"], "5");
        assert_eq!(headers["grpc-message"], "100 %25 gr%C3%B6%C3%9Fer%0A");
    }
}
