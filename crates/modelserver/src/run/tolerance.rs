//! Whether two answers are the same, within a tolerance.

use bytes::Bytes;
use inference::{Data, Datatype, Nan, Tensor, write_nested};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a floating-point output may be from what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tolerance {
    pub(crate) absolute: f64,
    pub(crate) relative: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { absolute: 1e-5, relative: 1e-4 }
    }
}

/// Looks `wanted` up among the outputs, and says where it differs.
pub(crate) fn compare(wanted: &Tensor, outputs: &[Tensor], tolerance: Tolerance) -> Result<(), String> {
    let name = &wanted.name;
    let Some(made) = outputs.iter().find(|output| output.name == *name) else {
        return Err(format!("the model has no output `{name}`"));
    };
    if made.shape != wanted.shape {
        return Err(format!("output `{name}` has the shape {:?}, expected {:?}", made.shape, wanted.shape));
    }
    if made.datatype() != wanted.datatype() {
        return Err(format!("output `{name}` is {}, expected {}", made.datatype(), wanted.datatype()));
    }
    match (floats(&made.data), floats(&wanted.data)) {
        (Some(made), Some(wanted)) => near(name, &made, &wanted, tolerance),
        _ if [made, wanted].iter().any(|tensor| matches!(tensor.data, Data::Json(_))) => {
            values_agree(name, made, wanted, tolerance)
        }
        _ => match first_difference(&made.data, &wanted.data) {
            None => Ok(()),
            Some((place, made, wanted)) => Err(format!("output `{name}`[{place}] is {made}, expected {wanted}")),
        },
    }
}

fn near(name: &str, made: &[f64], wanted: &[f64], tolerance: Tolerance) -> Result<(), String> {
    for (place, (made, wanted)) in made.iter().zip(wanted).enumerate() {
        let allowed = tolerance.absolute + tolerance.relative * wanted.abs();
        let difference = (made - wanted).abs();
        let close = made.is_finite() && wanted.is_finite() && difference <= allowed;
        let same = made == wanted || (made.is_nan() && wanted.is_nan()) || close;
        if !same {
            return Err(format!(
                "output `{name}`[{place}] is {}, expected {} (differs by {}, tolerance {})",
                short(*made, 7),
                short(*wanted, 7),
                short(difference, 3),
                short(allowed, 3)
            ));
        }
    }
    Ok(())
}

/// A number in so many significant digits; an FP32 holds seven.
fn short(number: f64, digits: usize) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    let rounded: f64 = format!("{number:.*e}", digits - 1).parse().unwrap_or(number);
    if (1e-3..1e9).contains(&rounded.abs()) { rounded.to_string() } else { format!("{rounded:e}") }
}

fn floats(data: &Data) -> Option<Vec<f64>> {
    match data {
        Data::Fp16(data) => Some(data.iter().map(|n| n.to_f64()).collect()),
        Data::Bf16(data) => Some(data.iter().map(|n| n.to_f64()).collect()),
        Data::Fp32(data) => Some(data.iter().map(|n| f64::from(*n)).collect()),
        Data::Fp64(data) => Some(data.clone()),
        Data::Bool(_)
        | Data::Uint8(_)
        | Data::Uint16(_)
        | Data::Uint32(_)
        | Data::Uint64(_)
        | Data::Int8(_)
        | Data::Int16(_)
        | Data::Int32(_)
        | Data::Int64(_)
        | Data::Bytes(_)
        | Data::Json(_) => None,
    }
}

fn first_difference(made: &Data, wanted: &Data) -> Option<(usize, String, String)> {
    fn first<T: PartialEq>(made: &[T], wanted: &[T], show: impl Fn(&T) -> String) -> Option<(usize, String, String)> {
        let place = made.iter().zip(wanted).position(|(made, wanted)| made != wanted)?;
        Some((place, show(&made[place]), show(&wanted[place])))
    }
    match (made, wanted) {
        (Data::Bool(made), Data::Bool(wanted)) => first(made, wanted, bool::to_string),
        (Data::Uint8(made), Data::Uint8(wanted)) => first(made, wanted, u8::to_string),
        (Data::Uint16(made), Data::Uint16(wanted)) => first(made, wanted, u16::to_string),
        (Data::Uint32(made), Data::Uint32(wanted)) => first(made, wanted, u32::to_string),
        (Data::Uint64(made), Data::Uint64(wanted)) => first(made, wanted, u64::to_string),
        (Data::Int8(made), Data::Int8(wanted)) => first(made, wanted, i8::to_string),
        (Data::Int16(made), Data::Int16(wanted)) => first(made, wanted, i16::to_string),
        (Data::Int32(made), Data::Int32(wanted)) => first(made, wanted, i32::to_string),
        (Data::Int64(made), Data::Int64(wanted)) => first(made, wanted, i64::to_string),
        (Data::Bytes(made), Data::Bytes(wanted)) => {
            first(made, wanted, |text| format!("\"{}\"", String::from_utf8_lossy(text)))
        }
        // Floats and JSON values are compared elsewhere, and datatypes were compared before.
        _ => None,
    }
}

/// Compares elements of which some are JSON values.
fn values_agree(name: &str, made: &Tensor, wanted: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    let is_text = [made, wanted].iter().any(|tensor| matches!(&tensor.data, Data::Json(json) if json.of.is_none()));
    let is_float = matches!(made.datatype(), Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64);
    let pairs = values(&made.data, is_text).into_iter().zip(values(&wanted.data, is_text));
    for (place, (made, wanted)) in pairs.enumerate() {
        match (made.as_f64(), wanted.as_f64()) {
            (Some(made), Some(wanted)) if is_float => {
                near(name, &[made], &[wanted], tolerance)
                    .map_err(|said| said.replacen("[0]", &format!("[{place}]"), 1))?;
            }
            _ if made == wanted => {}
            _ => return Err(format!("output `{name}`[{place}] is {made}, expected {wanted}")),
        }
    }
    Ok(())
}

/// The elements as JSON. With `is_text`, `BYTES` hold JSON.
fn values(data: &Data, is_text: bool) -> Vec<Value> {
    let texts = if let Data::Json(json) = data {
        Some(&json.texts)
    } else if let (Data::Bytes(texts), true) = (data, is_text) {
        Some(texts)
    } else {
        None
    };
    if let Some(texts) = texts {
        let value = |text: &Bytes| {
            serde_json::from_slice(text).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(text).into_owned()))
        };
        return texts.iter().map(value).collect();
    }
    let shape = vec![i64::try_from(data.len()).unwrap_or(i64::MAX)];
    let mut text = Vec::new();
    let tensor = Tensor { name: String::new(), shape, data: data.clone() };
    let written = write_nested(&mut text, &tensor, Nan::Null);
    written.ok().and_then(|()| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_must_be_the_same() {
        let compare = |made: f64, wanted: f64| near("y", &[made], &[wanted], Tolerance::default()).is_ok();
        assert!(compare(f64::NAN, f64::NAN) && compare(f64::INFINITY, f64::INFINITY));
        assert!(!compare(f64::NAN, 1.0) && !compare(1.0, f64::NAN) && !compare(f64::NEG_INFINITY, f64::INFINITY));
    }
}
