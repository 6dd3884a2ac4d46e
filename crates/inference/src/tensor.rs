//! A tensor: a name, a shape and typed elements.

use std::ops::Range;

use bytes::Bytes;
use half::{bf16, f16};

use super::{Datatype, Malformed};

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `BOOL`.
    Bool(Vec<bool>),
    /// `UINT8`.
    Uint8(Vec<u8>),
    /// `UINT16`.
    Uint16(Vec<u16>),
    /// `UINT32`.
    Uint32(Vec<u32>),
    /// `UINT64`.
    Uint64(Vec<u64>),
    /// `INT8`.
    Int8(Vec<i8>),
    /// `INT16`.
    Int16(Vec<i16>),
    /// `INT32`.
    Int32(Vec<i32>),
    /// `INT64`.
    Int64(Vec<i64>),
    /// `FP16`.
    Fp16(Vec<f16>),
    /// `BF16`.
    Bf16(Vec<bf16>),
    /// `FP32`.
    Fp32(Vec<f32>),
    /// `FP64`.
    Fp64(Vec<f64>),
    /// `BYTES`.
    Bytes(Vec<Bytes>),
    /// What none of the others can hold.
    Json(Json),
}

/// Elements that are JSON values: null, objects, lists of different lengths. Models of Python answer these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Json {
    /// The datatype that the elements have but for those that are null; `None` if they have none.
    pub of: Option<Datatype>,
    /// The text of each element.
    pub texts: Vec<Bytes>,
}

impl Json {
    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// Runs an expression on the vector inside a [`Data`], whatever its element type; another one on JSON values.
macro_rules! each_data {
    ($data:expr, $vec:ident => $do:expr, $json:pat => $else:expr) => {
        match $data {
            Data::Bool($vec) => $do,
            Data::Uint8($vec) => $do,
            Data::Uint16($vec) => $do,
            Data::Uint32($vec) => $do,
            Data::Uint64($vec) => $do,
            Data::Int8($vec) => $do,
            Data::Int16($vec) => $do,
            Data::Int32($vec) => $do,
            Data::Int64($vec) => $do,
            Data::Fp16($vec) => $do,
            Data::Bf16($vec) => $do,
            Data::Fp32($vec) => $do,
            Data::Fp64($vec) => $do,
            Data::Bytes($vec) => $do,
            Data::Json($json) => $else,
        }
    };
}
pub(super) use each_data;

impl Data {
    /// The type of the elements. JSON values without one are `BYTES` that hold JSON.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        match self {
            Self::Bool(_) => Datatype::Bool,
            Self::Uint8(_) => Datatype::Uint8,
            Self::Uint16(_) => Datatype::Uint16,
            Self::Uint32(_) => Datatype::Uint32,
            Self::Uint64(_) => Datatype::Uint64,
            Self::Int8(_) => Datatype::Int8,
            Self::Int16(_) => Datatype::Int16,
            Self::Int32(_) => Datatype::Int32,
            Self::Int64(_) => Datatype::Int64,
            Self::Fp16(_) => Datatype::Fp16,
            Self::Bf16(_) => Datatype::Bf16,
            Self::Fp32(_) => Datatype::Fp32,
            Self::Fp64(_) => Datatype::Fp64,
            Self::Bytes(_) => Datatype::Bytes,
            Self::Json(json) => json.of.unwrap_or(Datatype::Bytes),
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        each_data!(self, vec => vec.len(), json => json.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No elements, of the same kind as these.
    #[must_use]
    pub fn empty_like(&self) -> Self {
        if let Self::Json(json) = self {
            return Self::Json(Json { of: json.of, texts: Vec::new() });
        }
        Self::empty(self.datatype())
    }

    /// Makes room for exactly so many more elements.
    pub fn reserve(&mut self, count: usize) {
        each_data!(self, vec => vec.reserve_exact(count), json => json.texts.reserve_exact(count));
    }

    /// Adds the elements of `other` in `range`. `false`, and nothing is added, if they are of another type or
    /// `other` has no such range.
    pub fn append(&mut self, other: &Self, range: Range<usize>) -> bool {
        macro_rules! same_type {
            ($($kind:ident)*) => {
                match (self, other) {
                    $((Self::$kind(to), Self::$kind(from)) => match from.get(range) {
                        Some(elements) => { to.extend_from_slice(elements); true }
                        None => false,
                    })*
                    (Self::Json(to), Self::Json(from)) if to.of == from.of => {
                        let Some(texts) = from.texts.get(range) else { return false };
                        to.texts.extend_from_slice(texts);
                        true
                    }
                    _ => false,
                }
            };
        }
        same_type!(Bool Uint8 Uint16 Uint32 Uint64 Int8 Int16 Int32 Int64 Fp16 Bf16 Fp32 Fp64 Bytes)
    }
}

/// A named tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The name that the model gives it.
    pub name: String,
    /// Its dimensions; their product is the number of elements.
    pub shape: Vec<i64>,
    /// Its elements.
    pub data: Data,
}

impl Tensor {
    /// The type of its elements.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        self.data.datatype()
    }

    /// Checks that there are as many elements as the shape says.
    ///
    /// # Errors
    /// A shape with a negative dimension, too large a shape, or another number of elements.
    pub fn check_shape(&self) -> Result<(), Malformed> {
        let wanted = element_count(&self.shape)?;
        if wanted == self.data.len() {
            return Ok(());
        }
        Err(Malformed(format!("the shape {:?} has {wanted} elements, the data {}", self.shape, self.data.len())))
    }
}

/// Dimensions that a shape may have at most; as many as NumPy's arrays.
const MAX_RANK: usize = 64;

/// The number of elements of a shape: 1 for an empty shape.
///
/// # Errors
/// More than 64 dimensions, a negative one, or a product beyond what memory can hold.
pub fn element_count(shape: &[i64]) -> Result<usize, Malformed> {
    if shape.len() > MAX_RANK {
        return Err(Malformed(format!("the shape has {} dimensions, at most {MAX_RANK} are allowed", shape.len())));
    }
    let mut count: usize = 1;
    for &dimension in shape {
        let size = usize::try_from(dimension)
            .map_err(|_| Malformed(format!("the shape {shape:?} has the negative dimension {dimension}")))?;
        count = count
            .checked_mul(size)
            .filter(|count| *count <= isize::MAX as usize)
            .ok_or_else(|| Malformed(format!("the shape {shape:?} is too large")))?;
    }
    Ok(count)
}
