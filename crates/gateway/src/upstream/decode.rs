//! Decodes a body that follows a header over HTTP/1 (RFC 9112, 6 and 7).

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

/// Maximum length of the line before a chunk, with its extensions.
const LONGEST_LINE: usize = 4 << 10;
const LONGEST_TRAILERS: usize = 16 << 10;
const MOST_TRAILERS: usize = 64;

/// The position of the reader in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// After the body.
    Done,
    /// This many bytes follow.
    Length(u64),
    /// It ends with the connection.
    UntilClosed,
    /// Before, within, or after a chunk, or in the trailers.
    Size,
    Chunk(u64),
    Behind,
    Trailers,
}

/// The result of decoding the available bytes.
#[derive(Debug)]
pub(super) enum Decoded {
    /// A piece of the body, or its trailers.
    Frame(Frame<Bytes>),
    /// More bytes are needed.
    More,
    /// The body has ended.
    End,
}

impl Decoder {
    /// A chunked body.
    pub(super) fn chunked() -> Self {
        Self::Size
    }

    /// What is known about the remaining length.
    pub(super) fn size_hint(self) -> SizeHint {
        match self {
            Self::Done => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(left),
            Self::UntilClosed | Self::Size | Self::Chunk(_) | Self::Behind | Self::Trailers => SizeHint::default(),
        }
    }

    /// Takes the next piece from `input`.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Decoded, String> {
        loop {
            match self {
                Self::Done => return Ok(Decoded::End),
                _ if input.is_empty() => return Ok(Decoded::More),
                Self::UntilClosed => return Ok(Decoded::Frame(Frame::data(input.split().freeze()))),
                Self::Length(left) => {
                    let data = piece(input, left);
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Ok(Decoded::Frame(Frame::data(data)));
                }
                Self::Chunk(left) => {
                    let data = piece(input, left);
                    if *left == 0 {
                        *self = Self::Behind;
                    }
                    return Ok(Decoded::Frame(Frame::data(data)));
                }
                Self::Size => {
                    let Some(line) = line(input, LONGEST_LINE)? else { return Ok(Decoded::More) };
                    *self = match chunk_size(&line).ok_or("the length of a chunk is invalid")? {
                        0 => Self::Trailers,
                        size => Self::Chunk(size),
                    };
                }
                Self::Behind => {
                    if input.len() < 2 {
                        return Ok(Decoded::More);
                    }
                    if *input.split_to(2) != *b"\r\n" {
                        return Err("a chunk is longer than its declared length".to_owned());
                    }
                    *self = Self::Size;
                }
                Self::Trailers => {
                    let Some(trailers) = trailers(input)? else { return Ok(Decoded::More) };
                    *self = Self::Done;
                    if !trailers.is_empty() {
                        return Ok(Decoded::Frame(Frame::trailers(trailers)));
                    }
                }
            }
        }
    }
}

/// The available part of the `left` bytes.
fn piece(input: &mut BytesMut, left: &mut u64) -> Bytes {
    let length = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= length as u64;
    input.split_to(length).freeze()
}

/// A complete line without its end.
fn line(input: &mut BytesMut, longest: usize) -> Result<Option<BytesMut>, String> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > longest { Err("a line is too long".to_owned()) } else { Ok(None) };
    };
    let mut line = input.split_to(end + 1);
    if end > longest || end == 0 || line[end - 1] != b'\r' {
        return Err("a line is too long, or ends without a carriage return".to_owned());
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

/// The length in the line of a chunk. Extensions are ignored.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let number = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    let digits = !number.is_empty() && number.len() <= 16 && number.iter().all(u8::is_ascii_hexdigit);
    // Another reader could treat a carriage return within the line as its end.
    if !digits || line.contains(&b'\r') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(number).ok()?, 16).ok()
}

/// The trailers, once they are complete.
fn trailers(input: &mut BytesMut) -> Result<Option<HeaderMap>, String> {
    if input.starts_with(b"\r\n") {
        let _end = input.split_to(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut room = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let unreadable = |error| format!("its trailers are invalid: {error}");
    let (length, read) = match httparse::parse_headers(input, &mut room).map_err(unreadable)? {
        httparse::Status::Complete(read) => read,
        httparse::Status::Partial if input.len() > LONGEST_TRAILERS => {
            return Err("its trailers are too long".to_owned());
        }
        httparse::Status::Partial => return Ok(None),
    };
    let mut trailers = HeaderMap::with_capacity(read.len());
    for header in read {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(header.value)) else {
            return Err("its trailers are invalid".to_owned());
        };
        trailers.append(name, value);
    }
    let _read = input.split_to(length);
    Ok(Some(trailers))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
