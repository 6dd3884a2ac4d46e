//! Compressed bodies: gzip and deflate, in both directions.
//!
//! The limit applies to the decompressed body: it is decompressed in small steps, each of which is counted against the
//! limit and the memory for bodies before it is stored. Other tasks run between steps, so that a large body does not
//! delay other connections.

use std::io;

use bytes::Bytes;
use flate2::{Compression, write};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY},
};
use http_body_util::{BodyExt as _, Full};

use super::answer::{Answer, Body, Refusal};
use crate::protocol::inflate::{self, Encoding, Failed};

/// Bytes compressed at a time.
const STEP: usize = 64 << 10;

/// Smaller answers are not compressed: they fit into one packet either way.
const SMALL: u64 = 1 << 10;

/// The encoding of a request body, if any.
pub(super) fn of_body(headers: &HeaderMap) -> Result<Option<Encoding>, Refusal> {
    if !headers.contains_key(CONTENT_ENCODING) {
        return Ok(None);
    }
    let values = headers.get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let name = values.collect::<Vec<_>>().join(",").trim().to_ascii_lowercase();
    match name.as_str() {
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => Ok(Some(Encoding::Gzip)),
        "deflate" => Ok(Some(Encoding::Deflate)),
        _ => {
            let shown: String = name.chars().take(32).collect();
            let reason = format!("the body is encoded as {shown}: send it plain, or as gzip or deflate");
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason).closing())
        }
    }
}

/// The preferred encoding for the answer; gzip if both are equally acceptable.
pub(super) fn wanted(headers: &HeaderMap) -> Option<Encoding> {
    let mut best: Option<(f32, Encoding)> = None;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for entry in value.to_str().unwrap_or_default().split(',') {
            let (name, weight) = entry.split_once(';').map_or((entry, 1.0), |(name, weight)| {
                let weight = weight.trim().strip_prefix("q=").and_then(|q| q.parse().ok());
                (name, weight.unwrap_or(0.0))
            });
            let encoding = match name.trim() {
                name if name.eq_ignore_ascii_case("gzip") => Encoding::Gzip,
                name if name.eq_ignore_ascii_case("deflate") => Encoding::Deflate,
                _ => continue,
            };
            let better =
                best.is_none_or(|(than, other)| weight > than || (weight == than && other == Encoding::Deflate));
            if weight > 0.0 && better {
                best = Some((weight, encoding));
            }
        }
    }
    best.map(|(_, encoding)| encoding)
}

/// The decoded body. `admit` is called with its size before each step is stored.
pub(super) async fn inflate(
    body: &Bytes,
    encoding: Encoding,
    admit: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<Bytes, Refusal> {
    inflate::inflate(body, encoding, admit).await.map_err(|failed| match failed {
        Failed::Damaged(words) => Refusal::bad(words),
        Failed::Refused(refusal) => refusal,
    })
}

/// Compresses an answer that is large enough, for speed rather than size.
pub(super) async fn compress(answer: Answer, encoding: Encoding) -> Answer {
    let (mut head, body) = answer.into_parts();
    let Body::Full(full) = body else { return Answer::from_parts(head, body) };
    if http_body::Body::size_hint(&full).lower() < SMALL {
        return Answer::from_parts(head, Body::Full(full));
    }
    let plain = match full.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(never) => match never {},
    };
    let (name, made) = match encoding {
        Encoding::Gzip => ("gzip", deflated(write::GzEncoder::new(Vec::new(), Compression::fast()), &plain).await),
        Encoding::Deflate => {
            ("deflate", deflated(write::ZlibEncoder::new(Vec::new(), Compression::fast()), &plain).await)
        }
    };
    let Some(made) = made else { return Answer::from_parts(head, Body::Full(Full::new(plain))) };
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    head.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    head.headers.remove(CONTENT_LENGTH);
    Answer::from_parts(head, Body::Full(Full::new(made.into())))
}

/// `None`: it does not fail, and otherwise the answer is sent uncompressed.
async fn deflated<E: Encoder>(mut encoder: E, plain: &[u8]) -> Option<Vec<u8>> {
    for step in plain.chunks(STEP) {
        encoder.write_all(step).ok()?;
        tokio::task::yield_now().await;
    }
    encoder.end().ok()
}

trait Encoder: io::Write {
    fn end(self) -> io::Result<Vec<u8>>;
}

impl Encoder for write::GzEncoder<Vec<u8>> {
    fn end(self) -> io::Result<Vec<u8>> {
        self.finish()
    }
}

impl Encoder for write::ZlibEncoder<Vec<u8>> {
    fn end(self) -> io::Result<Vec<u8>> {
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_that_is_most_welcome_is_taken_and_none_that_is_not() {
        let of =
            |text: &'static str| wanted(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(text))]));
        assert_eq!(of("gzip, deflate, br"), Some(Encoding::Gzip));
        assert_eq!(of("deflate, gzip"), Some(Encoding::Gzip));
        assert_eq!(of("gzip;q=0.5, deflate"), Some(Encoding::Deflate));
        assert_eq!(of("gzip;q=0"), None);
        assert_eq!(of("br, identity"), None);
    }
}
