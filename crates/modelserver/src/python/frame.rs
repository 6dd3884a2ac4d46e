//! The protocol between the server and a worker: the binary format.
//!
//! One frame is one message of a socket that keeps message boundaries: a prefix followed by the body. A body that is
//! too large for a message is in shared memory instead, with the same layout. The package's `_frames.py` is the other
//! side.
//!
//! **Invariant:** every byte from a worker is validated, in memory that the worker can no longer change.

use bytes::Bytes;
use inference::{Data, Datatype, Json, Tensor, TensorMetadata, parameters_for_python};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    machine::shared::{Area, Number},
    mlflow::{answer::Extra, document},
    runtime::{Call, Purpose, RuntimeError, Signature, is_absent},
};

const _: () = assert!(cfg!(target_endian = "little"), "frames are in the machine's order, tensors little-endian");

/// Bodies above this size are in shared memory.
pub(super) const INLINE: usize = 32 << 10;
/// Maximum size of a message from a worker.
pub(super) const LARGEST: usize = 64 << 10;
/// Bytes before the body.
pub(super) const PREFIX: usize = 16;
/// Tensors are aligned to multiples of this.
const ALIGN: usize = 64;
/// The fixed part of an answer's body, and of each output in it.
const ANSWER: usize = 8;
const OUTPUT: usize = 24;
/// The fixed part of a request's body.
const RUN: usize = 12;
/// Maximum number of dimensions of an output; the same as in NumPy.
const MAX_RANK: usize = 64;

/// Outputs with this prefix may be missing from an answer.
const FEATURES: &str = "features.";

/// The body is in shared memory.
pub(super) const IN_AREA: u8 = 1;
/// More parts of it follow.
pub(super) const MORE: u8 = 2;
/// The run is over.
pub(super) const LAST: u8 = 4;
/// The model still uses inputs in shared memory.
pub(super) const KEPT: u8 = 8;

/// The request is its JSON, and an answer describes its outputs itself.
pub(super) const DOCUMENT: u8 = 16;
/// The parameters are a list: those of the request, and those of its inputs.
const INPUT_PARAMETERS: u8 = 32;
/// No client requested the run: metrics of the model in it are not shown.
const UNCOUNTED: u8 = 64;

/// The offset of an input that the request left out.
const ABSENT: u64 = u64::MAX;

/// The area for requests.
pub(super) const INPUTS: u16 = 0;
/// The area for answers.
pub(super) const OUTPUTS: u16 = 1;

/// The kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Run = 1,
    Cancel = 2,
    Area = 3,
    Taken = 4,
    Hello = 16,
    Answer = 17,
    End = 18,
    Error = 19,
    Need = 20,
    Unloadable = 21,
    Guard = 22,
}

/// Who is at fault for a failed run, in the detail of an error.
pub(super) const INVALID_INPUT: u16 = 1;
pub(super) const INTERRUPTED: u16 = 3;

/// The separator between the text of an error and its traceback.
pub(super) const TRACEBACK: char = '\0';

/// The prefix of every body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) detail: u16,
    pub(super) run: u32,
    /// Of the body, wherever it is.
    pub(super) length: usize,
}

impl Prefix {
    pub(super) fn new(kind: Kind, run: u32, length: usize) -> Self {
        Self { kind, flags: 0, detail: 0, run, length }
    }

    pub(super) fn bytes(&self) -> [u8; PREFIX] {
        let mut bytes = [0; PREFIX];
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[2..4].copy_from_slice(&self.detail.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.run.to_ne_bytes());
        bytes[8..].copy_from_slice(&(self.length as u64).to_ne_bytes());
        bytes
    }

    /// Parses a frame from a worker. `None`: it is invalid.
    pub(super) fn of_worker(message: &[u8]) -> Option<Self> {
        const KINDS: [Kind; 7] =
            [Kind::Hello, Kind::Answer, Kind::End, Kind::Error, Kind::Need, Kind::Unloadable, Kind::Guard];
        let mut reader = Reader(message);
        let [kind] = reader.take()?;
        let [flags] = reader.take()?;
        let detail = u16::from_ne_bytes(reader.take()?);
        let run = u32::from_ne_bytes(reader.take()?);
        let length = usize::try_from(u64::from_ne_bytes(reader.take()?)).ok()?;
        let kind = KINDS.into_iter().find(|known| *known as u8 == kind)?;
        let elsewhere = flags & IN_AREA != 0 || kind == Kind::Need;
        let fits = if elsewhere { reader.0.is_empty() } else { reader.0.len() == length };
        fits.then_some(Self { kind, flags, detail, run, length })
    }
}

/// Takes numbers from the front of bytes.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(u64::from_ne_bytes(self.take()?)).ok()
    }
}

/// An encoded request. It is reused for the next one to keep its memory.
#[derive(Debug, Default)]
pub(super) struct Request {
    head: Vec<u8>,
    /// The offset of each input.
    places: Vec<usize>,
    len: usize,
    /// The flags of the request.
    pub(super) flags: u8,
}

impl Request {
    /// Encodes a call.
    pub(super) fn lay_out(&mut self, call: &Call<'_>, signature: &Signature) -> Result<(), RuntimeError> {
        self.flags = if call.purpose == Purpose::Request { 0 } else { UNCOUNTED };
        if let Some((door, body)) = document::read(call.inputs) {
            self.head = document::message(door, body, call.parameters);
            self.places.clear();
            self.len = self.head.len();
            self.flags |= DOCUMENT;
            return Ok(());
        }
        let parameters = if !call.input_parameters.is_empty() {
            self.flags |= INPUT_PARAMETERS;
            let of_inputs: Vec<_> = call
                .input_parameters
                .iter()
                .map(|(input, given)| format!("{}:{}", json!(input), parameters_for_python(given)))
                .collect();
            format!("[{},{{{}}}]", parameters_for_python(call.parameters), of_inputs.join(","))
        } else if !call.parameters.is_empty() {
            parameters_for_python(call.parameters)
        } else {
            String::new()
        };
        let all =
            call.outputs.len() == signature.outputs.len() && call.outputs.iter().enumerate().all(|(i, o)| i == *o);
        let wanted: &[usize] = if all { &[] } else { call.outputs };
        let ranks: usize = signature.inputs.iter().map(|input| input.shape.len()).sum();
        let head = RUN + ranks * 8 + call.inputs.len() * 16 + wanted.len() * 2 + parameters.len();
        self.head.clear();
        self.places.clear();
        for number in [head, wanted.len(), parameters.len()] {
            let number = u32::try_from(number)
                .map_err(|_| RuntimeError::Rejected("the request's parameters are larger than 4 GiB".to_owned()))?;
            self.head.extend(number.to_ne_bytes());
        }
        let mut at = head.next_multiple_of(ALIGN);
        for (input, described) in call.inputs.iter().zip(&signature.inputs) {
            if is_absent(input) {
                described.shape.iter().for_each(|_| self.head.extend(0i64.to_ne_bytes()));
                self.head.extend(ABSENT.to_ne_bytes());
                self.head.extend(0u64.to_ne_bytes());
                self.places.push(at);
                continue;
            }
            if input.shape.len() != described.shape.len() {
                return Err(RuntimeError::Rejected(format!(
                    "input `{}` has {} dimensions, the model wants {}",
                    input.name,
                    input.shape.len(),
                    described.shape.len()
                )));
            }
            let length = length_of(&input.data);
            input.shape.iter().for_each(|size| self.head.extend(size.to_ne_bytes()));
            self.head.extend((at as u64).to_ne_bytes());
            self.head.extend((length as u64).to_ne_bytes());
            self.places.push(at);
            at = (at + length).next_multiple_of(ALIGN);
        }
        for place in wanted {
            self.head.extend(u16::try_from(*place).unwrap_or(u16::MAX).to_ne_bytes());
        }
        self.head.extend(parameters.into_bytes());
        self.len = at;
        Ok(())
    }

    /// The size of the body.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends the body to a message.
    pub(super) fn append_to(&self, message: &mut bytes::BytesMut, inputs: &[Tensor]) {
        let start = message.len();
        message.extend_from_slice(&self.head);
        for (place, input) in self.places.iter().zip(inputs).filter(|(_, input)| !is_absent(input)) {
            message.resize(start + place, 0);
            if let Data::Bytes(elements) = &input.data {
                lengths(elements).for_each(|length| message.extend_from_slice(&length.to_ne_bytes()));
                elements.iter().for_each(|element| message.extend_from_slice(element));
            } else {
                input.data.write_binary(message);
            }
        }
        message.resize(start + self.len, 0);
    }

    /// Writes the body into shared memory. `false` if it does not fit.
    #[must_use]
    pub(super) fn write_to(&self, area: &mut Area, inputs: &[Tensor]) -> bool {
        area.write(0, &self.head)
            && self.places.iter().zip(inputs).all(|(at, input)| match &input.data {
                Data::Bool(values) => area.write_bools(*at, values),
                Data::Uint8(values) => area.write(*at, values),
                Data::Uint16(values) => area.write(*at, values),
                Data::Uint32(values) => area.write(*at, values),
                Data::Uint64(values) => area.write(*at, values),
                Data::Int8(values) => area.write(*at, values),
                Data::Int16(values) => area.write(*at, values),
                Data::Int32(values) => area.write(*at, values),
                Data::Int64(values) => area.write(*at, values),
                Data::Fp16(values) => area.write(*at, values),
                Data::Bf16(values) => area.write(*at, values),
                Data::Fp32(values) => area.write(*at, values),
                Data::Fp64(values) => area.write(*at, values),
                Data::Json(json) => json.is_empty(),
                Data::Bytes(elements) => {
                    let mut at = *at;
                    let all: Vec<u32> = lengths(elements).collect();
                    area.write(at, &all) && {
                        at += all.len() * 4;
                        elements.iter().all(|element| {
                            let place = at;
                            at += element.len();
                            area.write(place, element)
                        })
                    }
                }
            })
    }
}

/// Lengths of texts. They came from a body, which is far below 4 GiB.
fn lengths(elements: &[Bytes]) -> impl Iterator<Item = u32> {
    elements.iter().map(|element| u32::try_from(element.len()).unwrap_or(u32::MAX))
}

fn length_of(data: &Data) -> usize {
    // Texts have their lengths before them here too, but all lengths come first.
    data.binary_len()
}

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The answer does not match the signature; the worker is in order.
    Answer(String),
    /// A correct worker never sends this.
    Frame(String),
}

fn frame<T>(value: Option<T>, what: &str) -> Result<T, Wrong> {
    value.ok_or_else(|| Wrong::Frame(what.to_owned()))
}

/// The location of an answer's body.
#[derive(Debug)]
pub(super) enum Body<'b> {
    Inline(Bytes),
    Shared(&'b Area),
}

impl Body<'_> {
    fn bytes(&self, at: usize, length: usize) -> Option<Bytes> {
        match self {
            Self::Inline(bytes) => {
                let end = at.checked_add(length).filter(|end| *end <= bytes.len())?;
                Some(bytes.slice(at..end))
            }
            Self::Shared(area) => area.read::<u8>(at, length).map(Bytes::from),
        }
    }
}

/// Reads the requested outputs, in order. Optional ones may be missing.
///
/// `rows` is the required first dimension of each.
pub(super) fn read_answer(
    body: &Body<'_>,
    wanted: &[usize],
    signature: &Signature,
    rows: Option<i64>,
) -> Result<Vec<Tensor>, Wrong> {
    let fixed = frame(body.bytes(0, ANSWER), "an answer without a head")?;
    let mut reader = Reader(&fixed);
    let number = |reader: &mut Reader<'_>| reader.take().map(u32::from_ne_bytes).and_then(|n| usize::try_from(n).ok());
    let (count, length) = (number(&mut reader).unwrap_or(0), number(&mut reader).unwrap_or(0));
    if length > signature.outputs.len() * (OUTPUT + MAX_RANK * 8) {
        return Err(Wrong::Frame(format!("an answer with a head of {length} bytes")));
    }
    let head = frame(body.bytes(ANSWER, length), "an answer whose head is not there")?;
    let mut reader = Reader(&head);
    let mut wanted = wanted.iter().copied();
    let mut outputs = Vec::with_capacity(count.min(signature.outputs.len()));
    for _ in 0..count {
        let entry = frame(Entry::read(&mut reader), "an answer whose head ends early")?;
        let described = loop {
            let place = frame(wanted.next(), "an answer with an output that was not asked for")?;
            let described = frame(signature.outputs.get(place), "an output that the model does not have")?;
            if place == entry.place {
                break described;
            }
            if !described.name.starts_with(FEATURES) {
                return Err(Wrong::Frame(format!("an answer without output `{}`", described.name)));
            }
        };
        check(&entry, described, rows)?;
        let data = read_data(body, &entry, &described.name, described.datatype)?;
        let data = match entry.form {
            None => data,
            Some(form) => Data::Json(json(data, form, described.datatype, &described.name)?),
        };
        outputs.push(Tensor { name: described.name.clone(), shape: entry.shape, data });
    }
    match wanted.find_map(|place| signature.outputs.get(place).filter(|output| !output.name.starts_with(FEATURES))) {
        Some(missing) => Err(Wrong::Frame(format!("an answer without output `{}`", missing.name))),
        None => Ok(outputs),
    }
}

/// The description of an answer in another form.
#[derive(Deserialize)]
struct Described<'h> {
    outputs: Vec<DescribedOutput>,
    #[serde(borrow, default)]
    v1: Option<&'h RawValue>,
    whole: bool,
    ignored: Vec<String>,
}

/// One of its outputs.
#[derive(Deserialize)]
struct DescribedOutput {
    name: String,
    datatype: Datatype,
    shape: Vec<i64>,
    at: usize,
    length: usize,
    /// Absent for a tensor; `values` if its elements are JSON values of that datatype or null; `text` if they are any
    /// JSON.
    json: Option<JsonForm>,
}

/// The meaning of JSON elements.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum JsonForm {
    Values,
    Text,
}

/// Reads an answer that does not follow the signature: [`Extra`], and any outputs.
pub(super) fn read_described(body: &Body<'_>) -> Result<Vec<Tensor>, Wrong> {
    let fixed = frame(body.bytes(0, ANSWER), "an answer without a head")?;
    let length = Reader(&fixed).size().unwrap_or(usize::MAX);
    let head = frame(body.bytes(ANSWER, length), "an answer whose head is not there")?;
    let head: Described<'_> = serde_json::from_slice(&head)
        .map_err(|error| Wrong::Frame(format!("an answer whose head is no JSON: {error}")))?;
    let mut outputs = Vec::with_capacity(head.outputs.len() + 1);
    outputs.extend(Extra { v1: head.v1, whole: head.whole, ignored: head.ignored }.tensor());
    for output in head.outputs {
        let DescribedOutput { name, datatype, shape, at, length, json: form } = output;
        if name.is_empty() || outputs.iter().any(|other: &Tensor| other.name == name) {
            return Err(Wrong::Frame(format!("an answer with two outputs `{name}`, or without a name")));
        }
        let entry = Entry { place: 0, code: 0, form, at, length, shape };
        let data = read_data(body, &entry, &name, datatype)?;
        let data = match form {
            None => data,
            Some(form) => Data::Json(json(data, form, datatype, &name)?),
        };
        outputs.push(Tensor { name, shape: entry.shape, data });
    }
    Ok(outputs)
}

/// Elements that are JSON texts.
fn json(data: Data, form: JsonForm, datatype: Datatype, name: &str) -> Result<Json, Wrong> {
    let no_json = || Wrong::Frame(format!("output `{name}`, whose elements are no JSON of {datatype}"));
    let Data::Bytes(texts) = data else { return Err(no_json()) };
    let is_json = |text: &Bytes| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    if !texts.iter().all(is_json) {
        return Err(no_json());
    }
    let json = Json { of: (form == JsonForm::Values).then_some(datatype), texts };
    if json.of.is_some() {
        let there = json.texts.iter().filter(|text| *text != "null").cloned().collect();
        Json { of: json.of, texts: there }.without_null().ok_or_else(no_json)?;
    }
    Ok(json)
}

/// The description of one output in an answer.
struct Entry {
    place: usize,
    code: u8,
    /// `None` for plain elements.
    form: Option<JsonForm>,
    at: usize,
    length: usize,
    shape: Vec<i64>,
}

impl Entry {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let place = usize::from(u16::from_ne_bytes(reader.take()?));
        let [code] = reader.take()?;
        let [rank] = reader.take()?;
        let form = match u32::from_ne_bytes(reader.take()?) {
            0 => None,
            1 => Some(JsonForm::Values),
            2 => Some(JsonForm::Text),
            _ => return None,
        };
        let (at, length) = (reader.size()?, reader.size()?);
        if usize::from(rank) > MAX_RANK {
            return None;
        }
        let shape = (0..rank).map(|_| reader.take().map(i64::from_ne_bytes)).collect::<Option<_>>()?;
        Some(Self { place, code, form, at, length, shape })
    }
}

/// Whether an output matches the signature.
fn check(entry: &Entry, described: &TensorMetadata, rows: Option<i64>) -> Result<(), Wrong> {
    let name = &described.name;
    if Datatype::ALL.get(usize::from(entry.code)) != Some(&described.datatype) {
        return Err(Wrong::Frame(format!("output `{name}` with the datatype {}", entry.code)));
    }
    if entry.form == Some(JsonForm::Text) && described.datatype != Datatype::Bytes {
        return Err(Wrong::Frame(format!("output `{name}` with JSON in the place of {}", described.datatype)));
    }
    let (given, wanted) = (&entry.shape, &described.shape);
    if given.iter().any(|size| *size < 0) {
        return Err(Wrong::Frame(format!("output `{name}` with the shape {given:?}")));
    }
    if given.len() != wanted.len() || given.iter().zip(wanted).any(|(given, wanted)| *wanted >= 0 && given != wanted) {
        return Err(Wrong::Answer(format!(
            "output `{name}` has the shape {given:?}, and the model's signature says {wanted:?}"
        )));
    }
    match (rows, given.first()) {
        (Some(rows), Some(made)) if rows != *made => Err(Wrong::Answer(format!(
            "output `{name}` has the shape {given:?}, which is {made} rows for the {rows} of the request"
        ))),
        _ => Ok(()),
    }
}

fn read_data(body: &Body<'_>, entry: &Entry, name: &str, datatype: Datatype) -> Result<Data, Wrong> {
    let count = inference::element_count(&entry.shape).map_err(|e| Wrong::Frame(e.to_string()))?;
    let nonsense = || Wrong::Frame(format!("output `{name}`, whose bytes do not fit its shape"));
    let datatype = if entry.form.is_some() { Datatype::Bytes } else { datatype };
    match (body, datatype.size()) {
        (_, Some(size)) if count.checked_mul(size) != Some(entry.length) => Err(nonsense()),
        (_, None) => {
            let bytes = body.bytes(entry.at, entry.length).ok_or_else(nonsense)?;
            texts(&bytes, count).map(Data::Bytes).ok_or_else(nonsense)
        }
        (Body::Inline(_), Some(_)) => {
            let bytes = body.bytes(entry.at, entry.length).ok_or_else(nonsense)?;
            Data::from_binary(datatype, &entry.shape, &bytes).map_err(|_| nonsense())
        }
        (Body::Shared(area), Some(_)) => shared_data(area, datatype, entry.at, count).ok_or_else(nonsense),
    }
}

fn shared_data(area: &Area, datatype: Datatype, at: usize, count: usize) -> Option<Data> {
    fn read<N: Number>(area: &Area, at: usize, count: usize, wrap: fn(Vec<N>) -> Data) -> Option<Data> {
        area.read(at, count).map(wrap)
    }
    match datatype {
        Datatype::Bool => {
            let bytes = area.read::<u8>(at, count)?;
            bytes.iter().all(|byte| *byte <= 1).then(|| Data::Bool(bytes.iter().map(|byte| *byte == 1).collect()))
        }
        Datatype::Uint8 => read(area, at, count, Data::Uint8),
        Datatype::Uint16 => read(area, at, count, Data::Uint16),
        Datatype::Uint32 => read(area, at, count, Data::Uint32),
        Datatype::Uint64 => read(area, at, count, Data::Uint64),
        Datatype::Int8 => read(area, at, count, Data::Int8),
        Datatype::Int16 => read(area, at, count, Data::Int16),
        Datatype::Int32 => read(area, at, count, Data::Int32),
        Datatype::Int64 => read(area, at, count, Data::Int64),
        Datatype::Fp16 => read(area, at, count, Data::Fp16),
        Datatype::Bf16 => read(area, at, count, Data::Bf16),
        Datatype::Fp32 => read(area, at, count, Data::Fp32),
        Datatype::Fp64 => read(area, at, count, Data::Fp64),
        Datatype::Bytes => None,
    }
}

/// Texts: all their lengths, followed by all their bytes.
fn texts(bytes: &Bytes, count: usize) -> Option<Vec<Bytes>> {
    let mut at = count.checked_mul(4).filter(|end| *end <= bytes.len())?;
    let lengths = bytes[..at].as_chunks::<4>().0;
    let mut elements = Vec::with_capacity(count);
    for length in lengths {
        let end =
            at.checked_add(usize::try_from(u32::from_ne_bytes(*length)).ok()?).filter(|end| *end <= bytes.len())?;
        elements.push(bytes.slice(at..end));
        at = end;
    }
    (at == bytes.len()).then_some(elements)
}
