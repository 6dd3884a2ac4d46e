//! What both processes say to one another. A frame is its kind, the length of the JSON in its body, the body's length,
//! and the body. Requests and answers are the protocol's own, with binary tensors.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use bytes::Bytes;
use inference::{Encoded, Nan, Parameter, Request, Response, Tensor, TensorMetadata};
use serde::{Deserialize, Serialize};

use crate::runtime::{RuntimeError, Signature};

/// The kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::onnx) enum Kind {
    /// To the process: load this model.
    Open = 1,
    Run = 2,
    /// Nobody waits for the run any more.
    Cancel = 3,
    /// From the process: the model's signature.
    Hello = 16,
    /// Why the model cannot be loaded.
    Unloadable = 17,
    Answer = 18,
    Error = 19,
}

const KINDS: [Kind; 7] =
    [Kind::Open, Kind::Run, Kind::Cancel, Kind::Hello, Kind::Unloadable, Kind::Answer, Kind::Error];

/// Bytes before the body.
const PREFIX: usize = 17;

/// What is to be loaded, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::onnx) struct Open {
    pub(in crate::onnx) file: PathBuf,
    pub(in crate::onnx) library: Option<PathBuf>,
    pub(in crate::onnx) threads: usize,
    /// Memory that the process may allocate, in bytes.
    pub(in crate::onnx) memory: u64,
    /// The largest answer, in bytes.
    pub(in crate::onnx) largest: usize,
    /// Everybody else goes first.
    pub(in crate::onnx) low_priority: bool,
}

/// What a reader does when nothing has come for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::onnx) enum Look {
    Wait,
    /// Say that the run is to end, and wait on.
    Cancel,
    /// Give up.
    End,
}

/// A body and the length of the JSON in it.
pub(in crate::onnx) type Body = (usize, Bytes);

pub(in crate::onnx) fn write(to: &mut impl Write, kind: Kind, (head, body): &Body) -> io::Result<()> {
    let mut prefix = [0; PREFIX];
    prefix[0] = kind as u8;
    prefix[1..9].copy_from_slice(&(*head as u64).to_le_bytes());
    prefix[9..].copy_from_slice(&(body.len() as u64).to_le_bytes());
    to.write_all(&prefix)?;
    to.write_all(body)
}

/// The next frame. `look` is asked whenever the reader's own time-out passes.
pub(in crate::onnx) fn read(
    from: &mut impl Read,
    look: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<(Kind, usize, Bytes)> {
    let mut prefix = [0; PREFIX];
    fill(from, &mut prefix, look)?;
    let kind = KINDS.into_iter().find(|kind| *kind as u8 == prefix[0]);
    let kind = kind.ok_or_else(|| io::Error::other("what came is no frame"))?;
    let number = |from: usize| {
        let bytes = prefix[from..from + 8].iter().rev();
        usize::try_from(bytes.fold(0u64, |number, byte| number << 8 | u64::from(*byte))).map_err(io::Error::other)
    };
    let (head, length) = (number(1)?, number(9)?);
    let mut body = Vec::new();
    // The length may be whatever a process says whose memory is broken: too much is an error, not the end of this one.
    body.try_reserve_exact(length).map_err(io::Error::other)?;
    while body.len() < length {
        let left = u64::try_from(length - body.len()).map_err(io::Error::other)?;
        match from.by_ref().take(left).read_to_end(&mut body) {
            Ok(_) if body.len() < length => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) => look_again(error, look)?,
        }
    }
    Ok((kind, head, body.into()))
}

/// Goes on after a time-out.
fn look_again(error: io::Error, look: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return look();
    }
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

fn fill(from: &mut impl Read, buffer: &mut [u8], look: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) => look_again(error, look)?,
        }
    }
    Ok(())
}

fn body(encoded: Encoded) -> Body {
    (encoded.header_length.unwrap_or(encoded.body.len()), encoded.body)
}

/// JSON alone.
pub(in crate::onnx) fn json(value: &impl Serialize) -> Body {
    let text = serde_json::to_vec(value).unwrap_or_default();
    (text.len(), text.into())
}

fn header(head: usize, body: &Bytes) -> Option<usize> {
    (head < body.len()).then_some(head)
}

pub(in crate::onnx) fn request(request: &Request) -> Body {
    // In binary there is nothing that cannot be written.
    request.encode(true).map(body).unwrap_or_default()
}

pub(in crate::onnx) fn read_request(bytes: &Bytes, head: usize) -> Result<Request, String> {
    Request::decode(bytes, header(head, bytes)).map_err(|e| e.to_string())
}

/// Outputs, and how the model describes its own where it has learned more of them.
pub(in crate::onnx) type Made = (Vec<Tensor>, Option<Vec<TensorMetadata>>);

const LEARNED: &str = "learned";

pub(in crate::onnx) fn answer((outputs, learned): Made) -> Body {
    let mut response = Response { outputs, ..Response::default() };
    if let Some(text) = learned.and_then(|learned| serde_json::to_string(&learned).ok()) {
        response.parameters.insert(LEARNED.to_owned(), Parameter::Text(text));
    }
    response.encode(Nan::Word, |_| true).map(body).unwrap_or_default()
}

pub(in crate::onnx) fn read_answer(bytes: &Bytes, head: usize) -> Result<Made, String> {
    let response = Response::decode(bytes, header(head, bytes)).map_err(|e| format!("sent no answer: {e}"))?;
    let learned = match response.parameters.get(LEARNED) {
        Some(Parameter::Text(text)) => serde_json::from_str(text).ok(),
        _ => None,
    };
    Ok((response.outputs, learned))
}

/// An error's sort and words.
#[derive(Serialize, Deserialize)]
enum Failure {
    Rejected(String),
    Cancelled,
    Unavailable(String),
    MemoryFull(String),
    Failed(String),
}

pub(in crate::onnx) fn error(error: RuntimeError) -> Body {
    json(&match error {
        RuntimeError::Rejected(words) => Failure::Rejected(words),
        RuntimeError::Cancelled => Failure::Cancelled,
        RuntimeError::Unavailable(words) => Failure::Unavailable(words),
        RuntimeError::MemoryFull(words) => Failure::MemoryFull(words),
        RuntimeError::Failed(words) => Failure::Failed(words),
    })
}

pub(in crate::onnx) fn read_error(bytes: &Bytes) -> RuntimeError {
    match serde_json::from_slice(bytes) {
        Ok(Failure::Rejected(words)) => RuntimeError::Rejected(words),
        Ok(Failure::Cancelled) => RuntimeError::Cancelled,
        Ok(Failure::Unavailable(words)) => RuntimeError::Unavailable(words),
        Ok(Failure::MemoryFull(words)) => RuntimeError::MemoryFull(words),
        Ok(Failure::Failed(words)) => RuntimeError::Failed(words),
        Err(error) => RuntimeError::Failed(format!("the model's process sent no error: {error}")),
    }
}

/// A signature on its way.
#[derive(Serialize, Deserialize)]
struct Told {
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
    defaults: Vec<TensorMetadata>,
    unranked: Vec<usize>,
    rows: bool,
}

pub(in crate::onnx) fn hello(signature: &Signature) -> Body {
    let Signature { inputs, outputs, defaults, unranked, rows, .. } = signature.clone();
    json(&Told { inputs, outputs, defaults, unranked, rows })
}

pub(in crate::onnx) fn read_hello(bytes: &Bytes, platform: &'static str) -> Result<Signature, String> {
    let told = serde_json::from_slice(bytes).map_err(|e| format!("sent no signature: {e}"))?;
    let Told { inputs, outputs, defaults, unranked, rows } = told;
    Ok(Signature { platform, inputs, defaults, unranked, outputs, rows, ..Signature::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_one_of_an_absurd_length_is_an_error() {
        let mut frame = Vec::new();
        let body = Bytes::from(vec![7; 100_000]);
        write(&mut frame, Kind::Answer, &(3, body.clone())).unwrap();
        let mut wait = || Ok(());
        assert_eq!(read(&mut frame.as_slice(), &mut wait).unwrap(), (Kind::Answer, 3, body));
        let cut = read(&mut &frame[..frame.len() - 1], &mut wait).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        for length in [u64::MAX, 1 << 62, 1 << 50] {
            frame[9..PREFIX].copy_from_slice(&length.to_le_bytes());
            assert!(read(&mut frame.as_slice(), &mut wait).is_err(), "{length}");
        }
    }
}
