//! The HTTP/1 answer of a replica: its header, and the framing of its body (RFC 9112).

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::decode::Decoder;

/// Maximum size of the header of an answer.
const LONGEST_HEAD: usize = 256 << 10;
const MOST_HEADERS: usize = 100;
/// Maximum number of interim answers before an answer.
const MOST_PASSED: usize = 64;

/// The header of an answer, and what follows it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) body: Decoder,
    /// Whether the connection can be used for another request.
    pub(super) stays: bool,
}

/// What was already seen of the header.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// How much of the input was checked.
    at: usize,
    /// The number of interim answers, and of empty lines between them.
    passed: usize,
}

/// Takes the complete header of the answer to a `method` request from `input`. Interim answers (1xx) are skipped.
/// `spare` is a map to put the headers into.
pub(super) fn take(
    input: &mut BytesMut,
    looked: &mut Looked,
    method: &Method,
    spare: &mut HeaderMap,
) -> Result<Option<Head>, String> {
    let Looked { at: fresh, passed } = looked;
    loop {
        // Empty lines before a header are allowed. The parser would treat them as an incomplete header.
        if input.first().is_some_and(|first| matches!(first, b'\r' | b'\n')) {
            let lines = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            input.advance(lines);
            (*fresh, *passed) = (fresh.saturating_sub(lines), *passed + 1);
        }
        if *passed > MOST_PASSED {
            return Err("it sends interim answers or empty lines without end".to_owned());
        }
        // Usually the first attempt finds all of it. Parsing an incomplete header again with each byte would take long.
        let new = &input[fresh.saturating_sub(3)..];
        let ends = *fresh == 0
            || memchr::memmem::find(new, b"\n\r\n").or_else(|| memchr::memmem::find(new, b"\n\n")).is_some();
        let Some(head) = (if ends && !new.is_empty() { parse(input, method, spare)? } else { None }) else {
            *fresh = input.len();
            return if input.len() > LONGEST_HEAD { Err("its head is too long".to_owned()) } else { Ok(None) };
        };
        (*fresh, *passed) = (0, *passed + 1);
        if !head.response.status().is_informational() {
            return Ok(Some(head));
        }
        if head.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err("it wants to switch to another protocol".to_owned());
        }
    }
}

fn parse(input: &mut BytesMut, method: &Method, spare: &mut HeaderMap) -> Result<Option<Head>, String> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut read = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut read, input, &mut room);
    let length = match parsed.map_err(|error| format!("its head cannot be read: {error}"))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let begin = input.as_ptr() as usize;
    let place = |bytes: &[u8]| {
        let at = bytes.as_ptr() as usize - begin;
        [at, at + bytes.len()]
    };
    let places: Vec<_> =
        read.headers.iter().map(|header| [place(header.name.as_bytes()), place(header.value)]).collect();
    let status = read.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("its status is none")?;
    let is_old = read.version == Some(0);
    let bytes = input.split_to(length).freeze();

    let mut headers = std::mem::take(spare);
    headers.reserve(places.len());
    let mut closes = false;
    let mut keeps = !is_old;
    for place in &places {
        let (name, value) = header(&bytes, place).ok_or("its headers cannot be read")?;
        if name == CONNECTION {
            let says = |word: &[u8]| {
                value.as_bytes().split(|b| *b == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(word))
            };
            closes |= says(b"close");
            keeps |= says(b"keep-alive");
            if [&b"close"[..], b"keep-alive"].iter().any(|word| value.as_bytes().eq_ignore_ascii_case(word)) {
                // It concerns only this connection, and names no other header.
                continue;
            }
        }
        headers.append(name, value);
    }
    let body = framing(status, method, is_old, &mut headers)?;
    let stays = keeps && !closes && !matches!(body, Decoder::UntilClosed);
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Some(Head { response, body, stays }))
}

fn header(head: &Bytes, place: &[[usize; 2]; 2]) -> Option<(HeaderName, HeaderValue)> {
    let [[name, name_end], [value, value_end]] = *place;
    let name = HeaderName::from_bytes(&head[name..name_end]).ok()?;
    Some((name, HeaderValue::from_maybe_shared(head.slice(value..value_end)).ok()?))
}

/// The framing of the body (RFC 9112, 6.3). Two contradicting lengths are an error.
fn framing(status: StatusCode, method: &Method, is_old: bool, headers: &mut HeaderMap) -> Result<Decoder, String> {
    if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Decoder::Done);
    }
    if *method == Method::HEAD {
        return Ok(Decoder::Done);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        if is_old {
            return Err("it has a transfer-encoding, and HTTP/1.0 has none".to_owned());
        }
        // Any other coding would be removed from the header, but remain in the body.
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let is_chunked = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !codings.next().is_some_and(is_chunked) || codings.next().is_some() {
            return Err("its transfer-encoding is not chunked".to_owned());
        }
        headers.remove(CONTENT_LENGTH);
        return Ok(Decoder::chunked());
    }
    let (mut length, mut values) = (None, 0);
    for value in headers.get_all(CONTENT_LENGTH).iter().flat_map(|it| it.as_bytes().split(|b| *b == b',')) {
        let value = value.trim_ascii();
        values += 1;
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|it| it.parse::<u64>().ok());
        match (number, length) {
            (Some(number), None) => length = Some(number),
            (Some(number), Some(known)) if number == known => {}
            (Some(_) | None, _) => return Err("its content-length is invalid".to_owned()),
        }
    }
    if values > 1
        && let Some(length) = length
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(match length {
        Some(0) => Decoder::Done,
        Some(length) => Decoder::Length(length),
        None => Decoder::UntilClosed,
    })
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
