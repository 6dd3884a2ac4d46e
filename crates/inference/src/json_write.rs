//! Tensors and messages as JSON text.

use std::io::Write;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use half::{bf16, f16};
use serde::Serialize;

use super::{Data, Malformed, Parameters, Tensor, tensor::each_data};

/// How to write a float that JSON cannot represent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nan {
    /// `"NaN"`.
    #[default]
    Word,
    /// null, like a missing value.
    Null,
}

/// Appends a value with serde.
pub(super) fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing strings, numbers and maps of them into memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// Appends the elements as one flat list.
pub(super) fn flat(out: &mut Vec<u8>, data: &Data, nan: Nan) -> Result<(), Malformed> {
    each_data!(data, vec => list(out, vec, nan), json => match json.of {
        Some(_) => list(out, &bare(&json.texts), nan),
        // Values without a datatype are JSON texts.
        None => list(out, &json.texts, nan),
    })
}

/// Appends the elements as lists nested like the shape: `[[1,2],[3,4]]`. `BYTES` with some that are not UTF-8, which
/// JSON cannot represent, are written as in V1: `{"b64":"…"}`. JSON values are written unchanged.
///
/// # Errors
/// None today: everything can be written.
pub fn write_nested(out: &mut Vec<u8>, tensor: &Tensor, nan: Nan) -> Result<(), Malformed> {
    if let Data::Bytes(elements) = &tensor.data
        && !all_text(elements)
    {
        return nest(out, &tensor.shape, &encoded(elements), nan);
    }
    each_data!(&tensor.data, vec => nest(out, &tensor.shape, vec, nan), json => nest(out, &tensor.shape, &bare(&json.texts), nan))
}

/// Appends one row, the part of a tensor at an index of its first dimension, like [`write_nested`]. A tensor without
/// dimensions is one row.
///
/// # Errors
/// See [`write_nested`].
pub fn write_row(out: &mut Vec<u8>, tensor: &Tensor, row: usize, nan: Nan) -> Result<(), Malformed> {
    let Some((rows, inner)) = tensor.shape.split_first() else { return write_nested(out, tensor, nan) };
    let size = tensor.data.len().checked_div(usize::try_from(*rows).unwrap_or(0)).unwrap_or(0);
    let place = row * size..(row + 1) * size;
    if let Data::Bytes(elements) = &tensor.data
        && !all_text(elements)
    {
        return nest(out, inner, &encoded(elements.get(place).unwrap_or_default()), nan);
    }
    each_data!(&tensor.data,
        vec => nest(out, inner, vec.get(place).unwrap_or_default(), nan),
        json => nest(out, inner, &bare(json.texts.get(place).unwrap_or_default()), nan))
}

/// Texts that are already JSON.
fn bare(texts: &[Bytes]) -> Vec<Bare<'_>> {
    texts.iter().map(|text| Bare(text)).collect()
}

struct Bare<'b>(&'b [u8]);

impl Write1 for Bare<'_> {
    fn write(&self, out: &mut Vec<u8>, _nan: Nan) -> Result<(), Malformed> {
        out.extend_from_slice(self.0);
        Ok(())
    }
}

fn all_text(elements: &[Bytes]) -> bool {
    elements.iter().all(|element| std::str::from_utf8(element).is_ok())
}

fn encoded(elements: &[Bytes]) -> Vec<Encoded<'_>> {
    elements.iter().map(|element| Encoded(element)).collect()
}

/// Bytes in base64.
struct Encoded<'b>(&'b [u8]);

impl Write1 for Encoded<'_> {
    fn write(&self, out: &mut Vec<u8>, _nan: Nan) -> Result<(), Malformed> {
        let _ = write!(out, "{{\"b64\":\"{}\"}}", STANDARD.encode(self.0));
        Ok(())
    }
}

fn nest<E: Write1>(out: &mut Vec<u8>, shape: &[i64], elements: &[E], nan: Nan) -> Result<(), Malformed> {
    match shape {
        [] => elements.first().map_or(Ok(()), |element| element.write(out, nan)),
        [_] => list(out, elements, nan),
        [first, inner @ ..] => {
            let rows = usize::try_from(*first).unwrap_or(0);
            let row = elements.len().checked_div(rows).unwrap_or(0);
            out.push(b'[');
            for index in 0..rows {
                if index > 0 {
                    out.push(b',');
                }
                nest(out, inner, elements.get(index * row..(index + 1) * row).unwrap_or_default(), nan)?;
            }
            out.push(b']');
            Ok(())
        }
    }
}

fn list<E: Write1>(out: &mut Vec<u8>, elements: &[E], nan: Nan) -> Result<(), Malformed> {
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        element.write(out, nan)?;
    }
    out.push(b']');
    Ok(())
}

/// Writes one element.
trait Write1 {
    fn write(&self, out: &mut Vec<u8>, nan: Nan) -> Result<(), Malformed>;
}

macro_rules! plain {
    ($($type:ty)*) => {$(
        impl Write1 for $type {
            fn write(&self, out: &mut Vec<u8>, _nan: Nan) -> Result<(), Malformed> {
                json(out, self);
                Ok(())
            }
        }
    )*};
}

plain!(bool u8 u16 u32 u64 i8 i16 i32 i64);

macro_rules! float {
    ($($type:ty, $wide:expr;)*) => {$(
        impl Write1 for $type {
            fn write(&self, out: &mut Vec<u8>, nan: Nan) -> Result<(), Malformed> {
                if self.is_finite() {
                    json(out, &$wide(*self));
                } else if self.is_nan() && nan == Nan::Null {
                    out.extend_from_slice(b"null");
                } else {
                    // JSON has no numbers for these; readers accept the same words.
                    let word = if self.is_nan() { "NaN" } else if self.is_sign_negative() { "-Infinity" } else { "Infinity" };
                    let _ = write!(out, "\"{word}\"");
                }
                Ok(())
            }
        }
    )*};
}

float! {
    f16, f16::to_f32;
    bf16, bf16::to_f32;
    f32, std::convert::identity;
    f64, std::convert::identity;
}

impl Write1 for Bytes {
    fn write(&self, out: &mut Vec<u8>, _nan: Nan) -> Result<(), Malformed> {
        let text = std::str::from_utf8(self).map_err(|_| {
            Malformed::new("an element of BYTES is not UTF-8, which JSON cannot hold: ask for binary data")
        })?;
        json(out, text);
        Ok(())
    }
}

/// Appends `,"name":value` unless the map is empty.
pub(super) fn parameters(out: &mut Vec<u8>, parameters: &Parameters) {
    if !parameters.is_empty() {
        out.extend_from_slice(b",\"parameters\":");
        json(out, parameters);
    }
}

/// Appends a tensor as an object. With `binary`, its elements follow the JSON, and only their size is written here.
pub(super) fn tensor(
    out: &mut Vec<u8>,
    tensor: &Tensor,
    extra: Option<&Parameters>,
    binary: bool,
    nan: Nan,
) -> Result<(), Malformed> {
    out.extend_from_slice(b"{\"name\":");
    json(out, &tensor.name);
    out.extend_from_slice(b",\"datatype\":\"");
    let datatype = if binary { tensor.data.binary_datatype() } else { tensor.datatype() };
    out.extend_from_slice(datatype.name().as_bytes());
    out.extend_from_slice(b"\",\"shape\":");
    list(out, &tensor.shape, nan)?;
    if binary {
        let mut all = extra.cloned().unwrap_or_default();
        let size = i64::try_from(tensor.data.binary_len()).unwrap_or(i64::MAX);
        all.insert(super::binary::BINARY_DATA_SIZE.to_owned(), super::Parameter::Int(size));
        parameters(out, &all);
    } else {
        extra.into_iter().for_each(|extra| parameters(out, extra));
        out.extend_from_slice(b",\"data\":");
        flat(out, &tensor.data, nan).map_err(|e| Malformed(format!("`{}`: {e}", tensor.name)))?;
    }
    out.push(b'}');
    Ok(())
}
