//! Reads the JSON of requests and responses field by field, without an intermediate generic value.
//!
//! `data` is read at once if the type and shape of the tensor came before it, as in all known clients; otherwise its
//! text is kept and read later.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    Data, Datatype, Ignored, Malformed, Parameter, Parameters, binary::BINARY_DATA_SIZE, json_data::DataSeed,
    replace_bare_floats,
};

/// A tensor whose elements came with the JSON, or follow it.
#[derive(Debug, PartialEq)]
pub(super) struct ReadTensor {
    pub(super) name: String,
    pub(super) shape: Vec<i64>,
    pub(super) datatype: Datatype,
    pub(super) parameters: Parameters,
    pub(super) data: Option<Data>,
}

/// An entry of a request's `outputs`.
#[derive(Debug, PartialEq)]
pub(super) struct ReadOutput {
    pub(super) name: String,
    pub(super) parameters: Parameters,
}

/// A whole message: a request (`O` is [`ReadOutput`]) or a response (`O` is [`ReadTensor`]).
#[derive(Debug, PartialEq)]
pub(super) struct ReadMessage<O> {
    pub(super) model_name: Option<String>,
    pub(super) model_version: Option<String>,
    pub(super) id: Option<String>,
    pub(super) parameters: Parameters,
    pub(super) inputs: Option<Vec<ReadTensor>>,
    pub(super) outputs: Option<Vec<O>>,
    pub(super) ignored: Ignored,
}

/// Reads a message. Unknown fields are ignored and recorded.
pub(super) fn read<O: Entry>(json: &[u8]) -> Result<ReadMessage<O>, Malformed> {
    let error = match read_once(json) {
        Ok(message) => return Ok(message),
        Err(error) => error,
    };
    match replace_bare_floats(json) {
        None if error.is_data() => Err(Malformed(error.to_string())),
        None => Err(Malformed(format!("the body is not JSON: {error}"))),
        // Line and column of a rewritten text mean nothing to the caller.
        Some(json) => read_once(&json).map_err(|error| {
            let Malformed(words) = Malformed::unplaced(&error);
            Malformed(if error.is_data() { words } else { format!("the body is not JSON: {words}") })
        }),
    }
}

fn read_once<O: Entry>(json: &[u8]) -> serde_json::Result<ReadMessage<O>> {
    let mut from = serde_json::Deserializer::from_slice(json);
    let message = MessageVisitor(PhantomData).deserialize(&mut from)?;
    from.end().map(|()| message)
}

/// The content of the list `outputs`.
pub(super) trait Entry: Sized {
    /// The fields of a message with this kind of `outputs`.
    const FIELDS: &'static [&'static str];
    fn read<'de, A: MapAccess<'de>>(map: A, place: usize, ignored: &mut Ignored) -> Result<Self, A::Error>;
}

/// Skips an unknown field.
fn ignore<'de, A: MapAccess<'de>>(
    map: &mut A,
    within: &str,
    field: &str,
    ignored: &mut Ignored,
) -> Result<(), A::Error> {
    ignored.add(within, field);
    map.next_value::<IgnoredAny>().map(|_| ())
}

fn missing<E: Error>(field: &str, list: &str, place: usize, name: Option<&String>, ignored: &Ignored) -> E {
    let hint = ignored.hint(&format!("{list}[{place}]."), field);
    E::custom(format!("`{field}` is missing in {}{hint}", label(list, place, name)))
}

/// Stores the value of a field, once; an error contains the name of the field. `null` counts as absent, because some
/// clients write it for defaults.
fn fill<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    map: &mut A,
    field: &str,
    of: &str,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::custom(format!("`{field}` occurs twice in {of}")));
    }
    *slot = map.next_value().map_err(|e| A::Error::custom(format!("`{field}` of {of}: {e}")))?;
    Ok(())
}

fn label(list: &str, place: usize, name: Option<&String>) -> String {
    name.map_or_else(|| format!("{list}[{place}]"), |name| format!("{list}[{place}] (`{name}`)"))
}

fn read_tensor<'de, A: MapAccess<'de>>(
    mut map: A,
    list: &str,
    place: usize,
    ignored: &mut Ignored,
) -> Result<ReadTensor, A::Error> {
    let mut name: Option<String> = None;
    let mut shape: Option<Vec<i64>> = None;
    let mut datatype: Option<Datatype> = None;
    let mut parameters: Option<Parameters> = None;
    let mut data: Option<Data> = None;
    let mut later: Option<&'de RawValue> = None;
    while let Some(field) = map.next_key::<std::borrow::Cow<'de, str>>()? {
        let of = || label(list, place, name.as_ref());
        match field.as_ref() {
            "name" => fill(&mut name, &mut map, "name", &label(list, place, None))?,
            "shape" => fill(&mut shape, &mut map, "shape", &of())?,
            "datatype" => fill(&mut datatype, &mut map, "datatype", &of())?,
            "parameters" => fill(&mut parameters, &mut map, "parameters", &of())?,
            "data" if data.is_some() || later.is_some() => {
                return Err(A::Error::custom(format!("`data` occurs twice in {}", of())));
            }
            "data" => match (datatype, &shape) {
                (Some(datatype), Some(shape)) => {
                    let read = map.next_value_seed(DataSeed { datatype, shape });
                    data = Some(read.map_err(|e| A::Error::custom(format!("{}: {e}", of())))?);
                }
                _ => later = Some(map.next_value()?),
            },
            other => ignore(&mut map, &format!("{list}[{place}]."), other, ignored)?,
        }
    }
    let missing = |field: &str| missing(field, list, place, name.as_ref(), ignored);
    let shape = shape.ok_or_else(|| missing("shape"))?;
    let datatype = datatype.ok_or_else(|| missing("datatype"))?;
    let is_behind = parameters.as_ref().is_some_and(|parameters| parameters.contains_key(BINARY_DATA_SIZE));
    if data.is_none() && later.is_none() && !is_behind {
        // A missing field is reported later; here a misspelt one is detected.
        let hint = ignored.hint(&format!("{list}[{place}]."), "data");
        if !hint.is_empty() {
            return Err(missing("data"));
        }
    }
    if let Some(raw) = later {
        let mut from = serde_json::Deserializer::from_str(raw.get());
        let read = DataSeed { datatype, shape: &shape }.deserialize(&mut from);
        data = Some(read.map_err(|e| A::Error::custom(format!("{}: {e}", label(list, place, name.as_ref()))))?);
    }
    let name = name.ok_or_else(|| self::missing("name", list, place, None, ignored))?;
    Ok(ReadTensor { name, shape, datatype, parameters: parameters.unwrap_or_default(), data })
}

impl Entry for ReadTensor {
    const FIELDS: &'static [&'static str] = &["model_name", "model_version", "id", "parameters", "outputs"];

    fn read<'de, A: MapAccess<'de>>(map: A, place: usize, ignored: &mut Ignored) -> Result<Self, A::Error> {
        read_tensor(map, "outputs", place, ignored)
    }
}

impl Entry for ReadOutput {
    // KServe's client repeats the model from the path; the path decides.
    const FIELDS: &'static [&'static str] = &["model_name", "model_version", "id", "parameters", "inputs", "outputs"];

    fn read<'de, A: MapAccess<'de>>(mut map: A, place: usize, ignored: &mut Ignored) -> Result<Self, A::Error> {
        let (mut name, mut parameters) = (None, None);
        while let Some(field) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let of = label("outputs", place, name.as_ref());
            match field.as_ref() {
                "name" => fill(&mut name, &mut map, "name", &of)?,
                "parameters" => fill(&mut parameters, &mut map, "parameters", &of)?,
                other => ignore(&mut map, &format!("outputs[{place}]."), other, ignored)?,
            }
        }
        let name = name.ok_or_else(|| missing("name", "outputs", place, None, ignored))?;
        Ok(Self { name, parameters: parameters.unwrap_or_default() })
    }
}

/// An input, which is a tensor in both kinds of message.
struct Input(ReadTensor);

impl Entry for Input {
    const FIELDS: &'static [&'static str] = &[];

    fn read<'de, A: MapAccess<'de>>(map: A, place: usize, ignored: &mut Ignored) -> Result<Self, A::Error> {
        read_tensor(map, "inputs", place, ignored).map(Self)
    }
}

/// A list of entries.
struct ListSeed<'i, O>(&'static str, &'i mut Ignored, PhantomData<O>);

impl<'de, O: Entry> DeserializeSeed<'de> for ListSeed<'_, O> {
    type Value = Vec<O>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<O>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, O: Entry> Visitor<'de> for ListSeed<'_, O> {
    type Value = Vec<O>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` as a list of objects", self.0)
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<O>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<O>, A::Error> {
        let mut entries = Vec::with_capacity(1);
        let Self(of, ignored, _) = self;
        while let Some(entry) = list.next_element_seed(EntrySeed(of, entries.len(), &mut *ignored, PhantomData))? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

struct EntrySeed<'i, O>(&'static str, usize, &'i mut Ignored, PhantomData<O>);

impl<'de, O: Entry> DeserializeSeed<'de> for EntrySeed<'_, O> {
    type Value = O;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<O, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, O: Entry> Visitor<'de> for EntrySeed<'_, O> {
    type Value = O;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] as an object", self.0, self.1)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<O, A::Error> {
        O::read(map, self.1, self.2)
    }
}

struct MessageVisitor<O>(PhantomData<O>);

impl<'de, O: Entry> DeserializeSeed<'de> for MessageVisitor<O> {
    type Value = ReadMessage<O>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<ReadMessage<O>, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, O: Entry> Visitor<'de> for MessageVisitor<O> {
    type Value = ReadMessage<O>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object as the body")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadMessage<O>, A::Error> {
        let mut read = ReadMessage {
            model_name: None,
            model_version: None,
            id: None,
            parameters: Parameters::new(),
            inputs: None,
            outputs: None,
            ignored: Ignored::default(),
        };
        let mut parameters: Option<std::collections::BTreeMap<String, Parameter>> = None;
        while let Some(field) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if !O::FIELDS.contains(&field.as_ref()) {
                ignore(&mut map, "", &field, &mut read.ignored)?;
                continue;
            }
            match field.as_ref() {
                "model_name" => fill(&mut read.model_name, &mut map, "model_name", "the body")?,
                "model_version" => fill(&mut read.model_version, &mut map, "model_version", "the body")?,
                "id" => fill(&mut read.id, &mut map, "id", "the body")?,
                "parameters" => fill(&mut parameters, &mut map, "parameters", "the body")?,
                "inputs" if read.inputs.is_none() => {
                    let inputs = map.next_value_seed(ListSeed::<Input>("inputs", &mut read.ignored, PhantomData))?;
                    read.inputs = Some(inputs.into_iter().map(|input| input.0).collect());
                }
                "outputs" if read.outputs.is_none() => {
                    read.outputs =
                        Some(map.next_value_seed(ListSeed::<O>("outputs", &mut read.ignored, PhantomData))?);
                }
                twice => return Err(A::Error::custom(format!("`{twice}` occurs twice in the body"))),
            }
        }
        read.parameters = parameters.unwrap_or_default();
        Ok(read)
    }
}
