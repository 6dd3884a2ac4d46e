//! Finds the model in a gRPC message: fields 1 (name) and 2 (version), and the message id, field 3.
//!
//! Everybody writes fields in order, although nobody must. A message that has arrived completely is read to its end, a
//! longer one until a later field begins. A compressed message is decompressed as far as needed.
//!
//! **Invariant:** each byte is read once, in however many pieces the message arrives, and the stored data is bounded.

use std::io::{self, Write};

use flate2::write::{GzDecoder, ZlibDecoder};
use http::StatusCode;

use super::{grpc::PREFIX, refusal::Refusal};

/// The maximum lengths of a name and a version. A longer id is ignored.
const LONGEST_NAME: usize = 1_024;
/// How much of a compressed message is decompressed to find its model.
const LONGEST_UNPACKED: usize = 1 << 20;
/// How much is decompressed at a time: the result may be a thousand times larger.
const STEP: usize = 256;

/// What is known about the first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// More bytes are needed.
    More,
    /// The model is known: the whole message has arrived, or a field after the names.
    Model,
}

/// Reads the first message of a call, piece by piece.
#[derive(Debug)]
pub(crate) struct Scanner {
    prefix: Vec<u8>,
    /// Bytes of the message that are still missing.
    left: usize,
    packing: Packing,
    fields: Fields,
    found: Found,
}

/// The compression of a message.
#[derive(Debug)]
enum Packing {
    None,
    Gzip(Box<GzDecoder<Vec<u8>>>),
    /// `deflate` in gRPC is zlib.
    Deflate(Box<ZlibDecoder<Vec<u8>>>),
    Unknown,
    /// No header names the compression.
    Unnamed,
}

impl Scanner {
    /// `encoding` is the `grpc-encoding` of the call.
    pub(crate) fn new(encoding: Option<&[u8]>) -> Self {
        let packing = match encoding {
            Some(b"gzip") => Packing::Gzip(Box::new(GzDecoder::new(Vec::new()))),
            Some(b"deflate") => Packing::Deflate(Box::new(ZlibDecoder::new(Vec::new()))),
            Some(b"identity") | None => Packing::Unnamed,
            Some(_) => Packing::Unknown,
        };
        Self { prefix: Vec::with_capacity(PREFIX), left: 0, packing, fields: Fields::default(), found: Found::More }
    }

    /// The name, empty if the message has none.
    pub(crate) fn name(&self) -> String {
        String::from_utf8_lossy(self.fields.kept[0].as_deref().unwrap_or_default()).into_owned()
    }

    /// The version, if one is given.
    pub(crate) fn version(&self) -> Option<String> {
        let version = self.fields.kept[1].as_deref().filter(|version| !version.is_empty())?;
        Some(String::from_utf8_lossy(version).into_owned())
    }

    /// The id of the message, empty if it has none.
    pub(crate) fn id(&self) -> String {
        String::from_utf8_lossy(self.fields.kept[2].as_deref().unwrap_or_default()).into_owned()
    }

    /// Whether the first message is complete.
    pub(crate) fn whole(&self) -> bool {
        self.prefix.len() == PREFIX && self.left == 0
    }

    /// How many bytes of the first message are missing, once its length is known.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Adds the next bytes. Returns how many of them belong to the first message and its prefix.
    ///
    /// # Errors
    /// The error response for an invalid message.
    pub(crate) fn read(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        let mut rest = data;
        if self.prefix.len() < PREFIX {
            let (prefix, after) = rest.split_at(rest.len().min(PREFIX - self.prefix.len()));
            self.prefix.extend_from_slice(prefix);
            rest = after;
            let [packed, length @ ..] = &*self.prefix else { return Ok(data.len()) };
            let Ok(length) = <[u8; 4]>::try_from(length) else { return Ok(data.len()) };
            match (packed, &self.packing) {
                (0, _) => self.packing = Packing::None,
                (_, Packing::Unknown) => {
                    let words = "the message is compressed in a way that this gateway cannot read; \
                                 `grpc-encoding` may be gzip, deflate or identity";
                    return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, words));
                }
                (_, Packing::Unnamed) => {
                    return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, api::words::COMPRESSION_UNNAMED));
                }
                (_, Packing::None | Packing::Gzip(_) | Packing::Deflate(_)) => {}
            }
            self.left = u32::from_be_bytes(length) as usize;
        }
        let message = &rest[..rest.len().min(self.left)];
        let taken = data.len() - rest.len() + message.len();
        self.left -= message.len();
        self.search(message)?;
        Ok(taken)
    }

    /// Whether the model is known.
    pub(crate) fn found(&self) -> Found {
        self.found
    }

    fn search(&mut self, message: &[u8]) -> Result<(), Refusal> {
        let whole = self.left == 0;
        let fields = &mut self.fields;
        match &mut self.packing {
            Packing::None | Packing::Unknown | Packing::Unnamed => {
                fields.read(message)?;
                if whole && !fields.at_a_boundary() {
                    return Err(malformed());
                }
            }
            Packing::Gzip(decoder) => {
                unpack(&mut **decoder, message, whole, GzDecoder::get_mut, GzDecoder::try_finish, fields)?
            }
            Packing::Deflate(decoder) => {
                unpack(&mut **decoder, message, whole, ZlibDecoder::get_mut, ZlibDecoder::try_finish, fields)?;
            }
        }
        if whole || self.fields.later {
            self.found = Found::Model;
        }
        Ok(())
    }
}

/// Decompresses the next bytes of a message until its model is known.
fn unpack<W: Write>(
    decoder: &mut W,
    message: &[u8],
    whole: bool,
    out: fn(&mut W) -> &mut Vec<u8>,
    finish: fn(&mut W) -> io::Result<()>,
    fields: &mut Fields,
) -> Result<(), Refusal> {
    for step in message.chunks(STEP) {
        if fields.later {
            return Ok(());
        }
        decoder.write_all(step).map_err(|error| unreadable(&error))?;
        fields.unpacked(out(decoder))?;
    }
    if whole && !fields.later {
        finish(decoder).map_err(|error| unreadable(&error))?;
        fields.unpacked(out(decoder))?;
        if !fields.at_a_boundary() {
            return Err(malformed());
        }
    }
    Ok(())
}

fn malformed() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "the message is not valid protobuf")
}

fn unreadable(error: &std::io::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("the message cannot be decompressed: {error}"))
}

/// The position of the reader in a protobuf message.
#[derive(Debug, Default)]
struct Fields {
    state: State,
    /// The current varint and its number of bits.
    number: u64,
    bits: u32,
    /// Name, version and id.
    kept: [Option<Vec<u8>>; 3],
    /// A field after the names began, and the name is known.
    later: bool,
    /// Bytes that were read.
    seen: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before or within the number of a field.
    #[default]
    Key,
    /// Within a varint value.
    Varint,
    /// Within the length of a field.
    Length(u64),
    /// This many bytes of a value are skipped.
    Skip(u64),
    /// This many bytes of a field are kept, by its index among those.
    Keep(usize, usize),
}

impl Fields {
    /// Reads the decompressed data, and clears it.
    fn unpacked(&mut self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.read(out)?;
        out.clear();
        if self.seen > LONGEST_UNPACKED {
            let words = "the model's name is too far behind in the compressed message; write its fields in order";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
        }
        Ok(())
    }

    fn at_a_boundary(&self) -> bool {
        matches!(self.state, State::Key) && self.bits == 0
    }

    fn read(&mut self, mut data: &[u8]) -> Result<(), Refusal> {
        self.seen += data.len();
        while !data.is_empty() {
            match self.state {
                State::Skip(left) => {
                    let step = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    data = &data[step..];
                    self.state = after(left - step as u64, State::Skip);
                }
                State::Keep(place, left) => {
                    let (piece, rest) = data.split_at(data.len().min(left));
                    data = rest;
                    self.kept[place].get_or_insert_default().extend_from_slice(piece);
                    self.state = if piece.len() == left { State::Key } else { State::Keep(place, left - piece.len()) };
                }
                State::Key | State::Varint | State::Length(_) => {
                    let byte = data[0];
                    data = &data[1..];
                    // Bits beyond the 64th are dropped, as in every decoder.
                    self.number |= u64::from(byte & 0x7f).checked_shl(self.bits).unwrap_or(0);
                    self.bits += 7;
                    if byte & 0x80 == 0 {
                        let number = std::mem::take(&mut self.number);
                        self.bits = 0;
                        self.take(number)?;
                    } else if self.bits >= 70 {
                        return Err(malformed());
                    }
                }
            }
        }
        Ok(())
    }

    /// A varint is complete.
    fn take(&mut self, number: u64) -> Result<(), Refusal> {
        self.state = match self.state {
            State::Key => {
                let field = number >> 3;
                if field > 3 && self.kept[0].is_some() {
                    self.later = true;
                }
                match number & 7 {
                    0 => State::Varint,
                    1 => State::Skip(8),
                    2 => State::Length(field),
                    5 => State::Skip(4),
                    _ => return Err(malformed()),
                }
            }
            State::Length(field @ 1..=3) => {
                let length = usize::try_from(number).unwrap_or(usize::MAX);
                let place = usize::try_from(field).unwrap_or(1) - 1;
                if length > LONGEST_NAME && place < 2 {
                    let what = ["model_name", "model_version"][place];
                    let words = format!("`{what}` has {length} bytes, and {LONGEST_NAME} are allowed");
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, words));
                }
                if length > LONGEST_NAME {
                    State::Skip(number)
                } else {
                    // The last one counts.
                    self.kept[place] = Some(Vec::with_capacity(length));
                    if length == 0 { State::Key } else { State::Keep(place, length) }
                }
            }
            State::Length(_) => after(number, State::Skip),
            State::Varint | State::Skip(_) | State::Keep(..) => State::Key,
        };
        Ok(())
    }
}

fn after(left: u64, state: impl Fn(u64) -> State) -> State {
    if left == 0 { State::Key } else { state(left) }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
