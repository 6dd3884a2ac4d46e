//! A fast reader for typical requests: plain names, known fields, each once, `data` after its type and shape. For any
//! other input it returns `None`, and [`super::json_read`] reads it, or reports what is wrong.
//!
//! **Invariant:** the other reader would give the same result for everything that is read here; a property test checks
//! it.

use bytes::Bytes;
use half::{bf16, f16};

use super::{
    Data, Datatype, Ignored, Parameters,
    json_read::{ReadMessage, ReadOutput, ReadTensor},
    scan::{Cursor, Decimal},
    tensor::{each_data, element_count},
};

/// A request.
pub(super) fn request(json: &[u8]) -> Option<ReadMessage<ReadOutput>> {
    let mut cursor = Cursor::new(json);
    let (mut id, mut parameters, mut inputs, mut outputs) = (None, None, None, None);
    fields(&mut cursor, |name, cursor| match name {
        "id" => once(&mut id, cursor.string()?.to_owned()),
        "parameters" => once(&mut parameters, serde_json::from_slice(cursor.value()?).ok()?),
        "inputs" => once(&mut inputs, list(cursor, tensor)?),
        "outputs" => once(&mut outputs, list(cursor, output)?),
        _ => None,
    })?;
    cursor.is_done().then(|| ReadMessage {
        model_name: None,
        model_version: None,
        id,
        parameters: parameters.unwrap_or_default(),
        inputs,
        outputs,
        ignored: Ignored::default(),
    })
}

/// Nested lists, and their shape.
pub(super) fn nested(json: &[u8], datatype: Datatype) -> Option<(Vec<i64>, Data)> {
    let mut cursor = Cursor::new(json);
    let mut data = Data::empty(datatype);
    let shape = each_data!(&mut data, out => lists(&mut cursor, out)?, _ => return None);
    cursor.is_done().then_some((shape, data))
}

fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.is_none().then(|| *slot = Some(value))
}

/// The fields of an object.
fn fields<'j>(cursor: &mut Cursor<'j>, mut read: impl FnMut(&str, &mut Cursor<'j>) -> Option<()>) -> Option<()> {
    cursor.take(b'{')?;
    if cursor.next()? == b'}' {
        cursor.step();
        return Some(());
    }
    loop {
        let name = cursor.string()?;
        cursor.take(b':')?;
        read(name, cursor)?;
        if !goes_on(cursor, b'}')? {
            return Some(());
        }
    }
}

/// The elements of a list.
fn list<'j, T>(cursor: &mut Cursor<'j>, mut read: impl FnMut(&mut Cursor<'j>) -> Option<T>) -> Option<Vec<T>> {
    cursor.take(b'[')?;
    let mut elements = Vec::new();
    if cursor.next()? == b']' {
        cursor.step();
        return Some(elements);
    }
    loop {
        elements.push(read(cursor)?);
        if !goes_on(cursor, b']')? {
            return Some(elements);
        }
    }
}

/// Skips a comma, or the end of the enclosing list or object.
#[inline]
fn goes_on(cursor: &mut Cursor<'_>, end: u8) -> Option<bool> {
    let byte = cursor.next()?;
    cursor.step();
    (byte == b',' || byte == end).then_some(byte == b',')
}

fn tensor(cursor: &mut Cursor<'_>) -> Option<ReadTensor> {
    let (mut name, mut shape, mut datatype, mut parameters, mut data) = (None, None, None, None, None);
    fields(cursor, |field, cursor| match field {
        "name" => once(&mut name, cursor.string()?.to_owned()),
        "shape" => {
            let read = list(cursor, |cursor| {
                cursor.next()?;
                i64::element(cursor)
            })?;
            once(&mut shape, read)
        }
        "datatype" => once(&mut datatype, cursor.string()?.parse::<Datatype>().ok()?),
        "parameters" => once(&mut parameters, serde_json::from_slice::<Parameters>(cursor.value()?).ok()?),
        "data" => once(&mut data, elements(cursor, datatype?, shape.as_deref()?)?),
        _ => None,
    })?;
    let parameters = parameters.unwrap_or_default();
    Some(ReadTensor { name: name?, shape: shape?, datatype: datatype?, parameters, data })
}

fn output(cursor: &mut Cursor<'_>) -> Option<ReadOutput> {
    let (mut name, mut parameters) = (None, None);
    fields(cursor, |field, cursor| match field {
        "name" => once(&mut name, cursor.string()?.to_owned()),
        "parameters" => once(&mut parameters, serde_json::from_slice(cursor.value()?).ok()?),
        _ => None,
    })?;
    Some(ReadOutput { name: name?, parameters: parameters.unwrap_or_default() })
}

/// The elements of a tensor: one flat list, or lists nested according to the shape.
fn elements(cursor: &mut Cursor<'_>, datatype: Datatype, shape: &[i64]) -> Option<Data> {
    let wanted = element_count(shape).ok()?;
    let mut data = Data::empty(datatype);
    let found = each_data!(&mut data, out => {
        // A shape is only a claim: an element takes at least two bytes.
        out.reserve(wanted.min(cursor.left() / 2 + 1));
        lists(cursor, out)?
    }, _ => return None);
    let is_flat = found.len() == 1 && data.len() == wanted;
    (found == shape || is_flat).then_some(data)
}

/// Nested lists with equal lengths at each depth, none of them empty.
fn lists<E: Element>(cursor: &mut Cursor<'_>, out: &mut Vec<E>) -> Option<Vec<i64>> {
    /// More dimensions than any real tensor has.
    const MOST: usize = 8;
    let mut shape = [0; MOST];
    let rank = list_into(cursor, out, &mut shape)?;
    shape[..rank].iter().map(|length| i64::try_from(*length).ok()).collect()
}

/// One list, or a scalar: appends its elements and records its length, and those of its inner lists. Returns its depth.
fn list_into<E: Element>(cursor: &mut Cursor<'_>, out: &mut Vec<E>, shape: &mut [usize]) -> Option<usize> {
    if cursor.next()? != b'[' {
        out.push(E::element(cursor)?);
        return Some(0);
    }
    cursor.step();
    let (length, inner) = shape.split_first_mut()?;
    let (mut count, mut depth) = (0, None);
    if cursor.next()? == b'[' {
        loop {
            let deep = list_into(cursor, out, inner)?;
            if *depth.get_or_insert(deep) != deep {
                return None;
            }
            count += 1;
            if !goes_on(cursor, b']')? {
                break;
            }
        }
    } else {
        loop {
            cursor.next()?;
            out.push(E::element(cursor)?);
            count += 1;
            if !goes_on(cursor, b']')? {
                break;
            }
        }
    }
    // 0: the first list at this depth.
    if *length != 0 && *length != count {
        return None;
    }
    *length = count;
    Some(1 + depth.unwrap_or(0))
}

/// One element, which begins here.
trait Element: Sized {
    fn element(cursor: &mut Cursor<'_>) -> Option<Self>;
}

macro_rules! whole {
    ($($type:ty)*) => {$(
        impl Element for $type {
            fn element(cursor: &mut Cursor<'_>) -> Option<Self> {
                cursor.number()?.whole()?.try_into().ok()
            }
        }
    )*};
}

whole!(u8 u16 u32 u64 i8 i16 i32 i64);

/// A number, or a word for a float that JSON cannot represent.
#[inline]
fn float<F>(
    cursor: &mut Cursor<'_>,
    number: impl FnOnce(Decimal<'_>) -> Option<F>,
    word: impl FnOnce(f64) -> F,
) -> Option<F> {
    let start = *cursor;
    match cursor.number() {
        Some(decimal) => number(decimal),
        None => {
            *cursor = start;
            cursor.float_word().map(word)
        }
    }
}

impl Element for f32 {
    fn element(cursor: &mut Cursor<'_>) -> Option<Self> {
        #[allow(clippy::cast_possible_truncation, reason = "NaN and the infinities are in FP32 too")]
        float(cursor, |number| number.single(), |word| word as Self)
    }
}

impl Element for f64 {
    fn element(cursor: &mut Cursor<'_>) -> Option<Self> {
        float(cursor, |number| number.double(), |word| word)
    }
}

impl Element for f16 {
    fn element(cursor: &mut Cursor<'_>) -> Option<Self> {
        let finite = |number: Decimal<'_>| Some(Self::from_f64(number.double()?)).filter(|number| number.is_finite());
        float(cursor, finite, Self::from_f64)
    }
}

impl Element for bf16 {
    fn element(cursor: &mut Cursor<'_>) -> Option<Self> {
        let finite = |number: Decimal<'_>| Some(Self::from_f64(number.double()?)).filter(|number| number.is_finite());
        float(cursor, finite, Self::from_f64)
    }
}

impl Element for bool {
    fn element(cursor: &mut Cursor<'_>) -> Option<Self> {
        match cursor.here()? {
            b't' => cursor.word(b"true").map(|()| true),
            b'f' => cursor.word(b"false").map(|()| false),
            _ => None,
        }
    }
}

impl Element for Bytes {
    fn element(cursor: &mut Cursor<'_>) -> Option<Self> {
        cursor.string().map(|text| Self::copy_from_slice(text.as_bytes()))
    }
}
