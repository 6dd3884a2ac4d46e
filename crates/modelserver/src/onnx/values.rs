//! Tensors of the protocol as values of ONNX Runtime, and back.

mod maps;

use bytes::Bytes;
use half::{bf16, f16};
use inference::{Data, Datatype, Tensor};
use ort::{
    session::SessionInputValue,
    value::{
        DynMapValueType, DynTensorValueType, DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef,
        TensorValueTypeMarker, Value, ValueType,
    },
};

use self::maps::Taken;
use super::strings;
use crate::runtime::RuntimeError;

/// Elements that can be read behind the pointer of an empty tensor. All are zero.
const READABLE: usize = 64;

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
    // An empty vector has no memory, and operators read a scalar without looking at how many elements there are.
    macro_rules! lend {
        ($data:expr, $zero:expr) => {
            lend(shape, if $data.is_empty() { const { [$zero; READABLE].split_at(0).0 } } else { $data.as_slice() })
        };
    }
    match &tensor.data {
        Data::Bool(data) => lend!(data, false),
        Data::Uint8(data) => lend!(data, 0),
        Data::Uint16(data) => lend!(data, 0),
        Data::Uint32(data) => lend!(data, 0),
        Data::Uint64(data) => lend!(data, 0),
        Data::Int8(data) => lend!(data, 0),
        Data::Int16(data) => lend!(data, 0),
        Data::Int32(data) => lend!(data, 0),
        Data::Int64(data) => lend!(data, 0),
        Data::Fp16(data) => lend!(data, f16::ZERO),
        Data::Bf16(data) => lend!(data, bf16::ZERO),
        Data::Fp32(data) => lend!(data, 0.0),
        Data::Fp64(data) => lend!(data, 0.0),
        Data::Bytes(data) => Ok(strings::tensor(&tensor.name, shape, data)?.into()),
        Data::Json(_) => Err(RuntimeError::Rejected(format!("input `{}` holds JSON values", tensor.name))),
    }
}

fn lend<'t, T>(shape: &'t [i64], data: &'t [T]) -> Result<SessionInputValue<'t>, RuntimeError>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let value = TensorRef::from_array_view((shape, data));
    Ok(value.map_err(|e| RuntimeError::Failed(e.message().to_owned()))?.into())
}

/// Why a value cannot be sent.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) reason: String,
    /// With other inputs the model may make one that can.
    pub(super) by_inputs: bool,
}

impl From<String> for Unsent {
    fn from(reason: String) -> Self {
        Self { reason, by_inputs: false }
    }
}

/// Copies a value out of the runtime: its shape, its elements, and the classes if it was made of maps.
pub(super) fn from_onnx(value: &DynValue) -> Result<Taken, Unsent> {
    match value.dtype() {
        ValueType::Tensor { ty, .. } => Ok((value.shape().to_vec(), tensor(value, *ty)?, None)),
        ValueType::Map { key, value: ty } => Ok(maps::single(value, *key, *ty)?),
        ValueType::Sequence(inner) => match inner.as_ref() {
            ValueType::Map { .. } => {
                Ok(maps::tensor(&value.try_extract_sequence::<DynMapValueType>().map_err(|e| e.message().to_owned())?)?)
            }
            ValueType::Tensor { ty, .. } => stacked(value, *ty),
            other @ (ValueType::Sequence(_) | ValueType::Optional(_)) => {
                Err(format!("a sequence of {other} cannot be sent").into())
            }
        },
        other @ ValueType::Optional(_) => Err(format!("{other} cannot be sent").into()),
    }
}

/// A sequence of tensors of one shape as one tensor, the place in the sequence its first dimension.
fn stacked(sequence: &DynValue, ty: TensorElementType) -> Result<Taken, Unsent> {
    let parts = sequence.try_extract_sequence::<DynTensorValueType>().map_err(|e| e.message().to_owned())?;
    let mut data = Data::empty(datatype(ty)?);
    let inner = parts.first().map(|part| part.shape().to_vec()).unwrap_or_default();
    for (place, part) in parts.iter().enumerate() {
        if **part.shape() != *inner {
            let reason = format!(
                "its tensors have different shapes (the first {inner:?}, number {place} {:?}), and only equal ones can \
                 be sent as one: send inputs that give equal ones, or ask for other outputs",
                part.shape().to_vec()
            );
            return Err(Unsent { reason, by_inputs: true });
        }
        let part = tensor(part, ty)?;
        data.append(&part, 0..part.len());
    }
    let mut shape = vec![i64::try_from(parts.len()).unwrap_or(i64::MAX)];
    shape.extend(inner);
    Ok((shape, data, None))
}

fn tensor<V: TensorValueTypeMarker + ?Sized>(value: &Value<V>, ty: TensorElementType) -> Result<Data, String> {
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
        Datatype::Fp16 => Data::Fp16(copy::<f16, V>(value)?),
        Datatype::Bf16 => Data::Bf16(copy::<bf16, V>(value)?),
        Datatype::Fp32 => Data::Fp32(copy(value)?),
        Datatype::Fp64 => Data::Fp64(copy(value)?),
        Datatype::Bytes => {
            let (_, strings) = value.try_extract_strings().map_err(|e| e.message().to_owned())?;
            Data::Bytes(strings.into_iter().map(Bytes::from).collect())
        }
    })
}

fn copy<T, V>(value: &Value<V>) -> Result<Vec<T>, String>
where
    T: PrimitiveTensorElementType + Clone,
    V: TensorValueTypeMarker + ?Sized,
{
    value.try_extract_tensor::<T>().map(|(_, data)| data.to_vec()).map_err(|e| e.message().to_owned())
}
