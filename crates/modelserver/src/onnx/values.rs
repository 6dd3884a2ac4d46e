//! Tensors of the protocol as values of ONNX Runtime, and back.

use api::inference::{Data, Datatype, Tensor};
use bytes::Bytes;
use half::{bf16, f16};
use ort::{
    session::SessionInputValue,
    value::{DynMapValueType, DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType},
};

use crate::runtime::RuntimeError;

/// The protocol's word for an element type.
pub(super) fn datatype(ty: TensorElementType) -> Result<Datatype, String> {
    #[allow(clippy::wildcard_enum_match_arm, reason = "the rest have no datatype in the protocol")]
    match ty {
        TensorElementType::Bool => Ok(Datatype::Bool),
        TensorElementType::Uint8 => Ok(Datatype::Uint8),
        TensorElementType::Uint16 => Ok(Datatype::Uint16),
        TensorElementType::Uint32 => Ok(Datatype::Uint32),
        TensorElementType::Uint64 => Ok(Datatype::Uint64),
        TensorElementType::Int8 => Ok(Datatype::Int8),
        TensorElementType::Int16 => Ok(Datatype::Int16),
        TensorElementType::Int32 => Ok(Datatype::Int32),
        TensorElementType::Int64 => Ok(Datatype::Int64),
        TensorElementType::Float16 => Ok(Datatype::Fp16),
        TensorElementType::Bfloat16 => Ok(Datatype::Bf16),
        TensorElementType::Float32 => Ok(Datatype::Fp32),
        TensorElementType::Float64 => Ok(Datatype::Fp64),
        TensorElementType::String => Ok(Datatype::Bytes),
        other => Err(format!("has elements of {other}, for which the protocol has no datatype")),
    }
}

/// Lends a tensor to the runtime; strings are copied.
pub(super) fn to_onnx(tensor: &Tensor) -> Result<SessionInputValue<'_>, RuntimeError> {
    let shape = tensor.shape.as_slice();
    match &tensor.data {
        Data::Bool(data) => lend(shape, data),
        Data::Uint8(data) => lend(shape, data),
        Data::Uint16(data) => lend(shape, data),
        Data::Uint32(data) => lend(shape, data),
        Data::Uint64(data) => lend(shape, data),
        Data::Int8(data) => lend(shape, data),
        Data::Int16(data) => lend(shape, data),
        Data::Int32(data) => lend(shape, data),
        Data::Int64(data) => lend(shape, data),
        Data::Fp16(data) => lend(shape, data),
        Data::Bf16(data) => lend(shape, data),
        Data::Fp32(data) => lend(shape, data),
        Data::Fp64(data) => lend(shape, data),
        Data::Bytes(data) => {
            let strings = data.iter().enumerate().map(|(place, bytes)| text(&tensor.name, place, bytes));
            let strings = strings.collect::<Result<Vec<String>, _>>()?;
            let value = ort::value::Tensor::from_string_array((shape, strings.as_slice()));
            Ok(value.map_err(|e| RuntimeError::Failed(e.message().to_owned()))?.into())
        }
    }
}

fn text(name: &str, place: usize, bytes: &[u8]) -> Result<String, RuntimeError> {
    let refuse = |what| RuntimeError::Rejected(format!("input `{name}`: element {place} {what}"));
    if bytes.contains(&0) {
        return Err(refuse("holds a zero byte, which ONNX strings cannot"));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| refuse("is not UTF-8, which ONNX strings are"))
}

fn lend<'t, T>(shape: &'t [i64], data: &'t [T]) -> Result<SessionInputValue<'t>, RuntimeError>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let value = TensorRef::from_array_view((shape, data));
    Ok(value.map_err(|e| RuntimeError::Failed(e.message().to_owned()))?.into())
}

type Taken = (Vec<i64>, Data, Option<Vec<String>>);

/// Copies a value out of the runtime: its shape, its elements, and the classes if it was made of maps.
pub(super) fn from_onnx(value: &DynValue) -> Result<Taken, String> {
    match value.dtype() {
        ValueType::Tensor { ty, .. } => {
            let data = tensor(value, *ty)?;
            Ok((value.shape().to_vec(), data, None))
        }
        ValueType::Map { key, value: ty } => scores(&[rows(value, *key, *ty)?]),
        ValueType::Sequence(_) => {
            let maps = value.try_extract_sequence::<DynMapValueType>().map_err(|e| e.message().to_owned())?;
            let rows = maps.iter().map(|map| match map.dtype() {
                ValueType::Map { key, value: ty } => rows(map, *key, *ty),
                other @ (ValueType::Tensor { .. } | ValueType::Sequence(_) | ValueType::Optional(_)) => {
                    Err(format!("{other} cannot be sent"))
                }
            });
            scores(&rows.collect::<Result<Vec<_>, _>>()?)
        }
        other @ ValueType::Optional(_) => Err(format!("{other} cannot be sent")),
    }
}

fn tensor(value: &DynValue, ty: TensorElementType) -> Result<Data, String> {
    Ok(match datatype(ty)? {
        Datatype::Bool => Data::Bool(copy(value)?),
        Datatype::Uint8 => Data::Uint8(copy(value)?),
        Datatype::Uint16 => Data::Uint16(copy(value)?),
        Datatype::Uint32 => Data::Uint32(copy(value)?),
        Datatype::Uint64 => Data::Uint64(copy(value)?),
        Datatype::Int8 => Data::Int8(copy(value)?),
        Datatype::Int16 => Data::Int16(copy(value)?),
        Datatype::Int32 => Data::Int32(copy(value)?),
        Datatype::Int64 => Data::Int64(copy(value)?),
        Datatype::Fp16 => Data::Fp16(copy::<f16>(value)?),
        Datatype::Bf16 => Data::Bf16(copy::<bf16>(value)?),
        Datatype::Fp32 => Data::Fp32(copy(value)?),
        Datatype::Fp64 => Data::Fp64(copy(value)?),
        Datatype::Bytes => {
            let (_, strings) = value.try_extract_strings().map_err(|e| e.message().to_owned())?;
            Data::Bytes(strings.into_iter().map(Bytes::from).collect())
        }
    })
}

fn copy<T: PrimitiveTensorElementType + Clone>(value: &DynValue) -> Result<Vec<T>, String> {
    value.try_extract_tensor::<T>().map(|(_, data)| data.to_vec()).map_err(|e| e.message().to_owned())
}

/// One row of scores: a class's name and its score.
type Row = Vec<(String, Score)>;

/// A score, which is single or double.
#[derive(Clone, Copy)]
enum Score {
    Single(f32),
    Double(f64),
}

fn rows<M: ort::value::MapValueTypeMarker + ?Sized>(
    map: &ort::value::Value<M>,
    key: TensorElementType,
    value: TensorElementType,
) -> Result<Row, String> {
    let failed = |e: ort::Error| e.message().to_owned();
    let single = |(key, score): (String, f32)| (key, Score::Single(score));
    let double = |(key, score): (String, f64)| (key, Score::Double(score));
    #[allow(clippy::wildcard_enum_match_arm, reason = "ZipMap makes no other maps")]
    match (key, value) {
        (TensorElementType::Int64, TensorElementType::Float32) => {
            let pairs = map.try_extract_key_values::<i64, f32>().map_err(failed)?;
            Ok(pairs.into_iter().map(|(key, score)| single((key.to_string(), score))).collect())
        }
        (TensorElementType::String, TensorElementType::Float32) => {
            let pairs = map.try_extract_key_values::<String, f32>().map_err(failed)?;
            Ok(pairs.into_iter().map(single).collect())
        }
        (TensorElementType::Int64, TensorElementType::Float64) => {
            let pairs = map.try_extract_key_values::<i64, f64>().map_err(failed)?;
            Ok(pairs.into_iter().map(|(key, score)| double((key.to_string(), score))).collect())
        }
        (TensorElementType::String, TensorElementType::Float64) => {
            let pairs = map.try_extract_key_values::<String, f64>().map_err(failed)?;
            Ok(pairs.into_iter().map(double).collect())
        }
        (key, value) => Err(format!("maps from {key} to {value} cannot be sent")),
    }
}

/// Rows of scores as one tensor `[rows, classes]`.
fn scores(rows: &[Row]) -> Result<Taken, String> {
    let labels: Vec<String> = rows.first().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    let alike = |row: &Row| row.len() == labels.len() && row.iter().zip(&labels).all(|((key, _), label)| key == label);
    if !rows.iter().all(alike) {
        return Err("its rows have scores for different classes".to_owned());
    }
    let shape = [rows.len(), labels.len()].map(|size| i64::try_from(size).unwrap_or(i64::MAX)).to_vec();
    let all = || rows.iter().flatten().map(|(_, score)| *score);
    let data = if all().any(|score| matches!(score, Score::Double(_))) {
        Data::Fp64(
            all()
                .map(|score| match score {
                    Score::Single(score) => f64::from(score),
                    Score::Double(score) => score,
                })
                .collect(),
        )
    } else {
        Data::Fp32(
            all()
                .filter_map(|score| match score {
                    Score::Single(score) => Some(score),
                    Score::Double(_) => None,
                })
                .collect(),
        )
    };
    Ok((shape, data, Some(labels)))
}
