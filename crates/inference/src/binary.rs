//! Tensors as bytes: numbers little-endian, `BOOL` one byte, `BYTES` a u32 length before each element.

use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};

use super::{Data, Datatype, Json, Malformed, tensor::element_count};

/// The parameter of a tensor with its number of bytes in the binary part.
pub(super) const BINARY_DATA_SIZE: &str = "binary_data_size";

impl Data {
    /// Reads exactly the elements of `shape` from `bytes`. Elements of `BYTES` share the memory.
    ///
    /// # Errors
    /// Too few or too many bytes, or a byte that is not a valid `BOOL`.
    pub fn from_binary(datatype: Datatype, shape: &[i64], bytes: &Bytes) -> Result<Self, Malformed> {
        let count = element_count(shape)?;
        if let Some(size) = datatype.size()
            && count.checked_mul(size) != Some(bytes.len())
        {
            return Err(Malformed(format!(
                "{count} elements of {datatype} (shape {shape:?}) take {} bytes, {} were sent",
                count.saturating_mul(size),
                bytes.len()
            )));
        }
        Ok(match datatype {
            Datatype::Bool => Self::Bool(bools(bytes)?),
            Datatype::Uint8 => Self::Uint8(bytes.to_vec()),
            Datatype::Int8 => Self::Int8(numbers(bytes, i8::from_le_bytes)),
            Datatype::Uint16 => Self::Uint16(numbers(bytes, u16::from_le_bytes)),
            Datatype::Uint32 => Self::Uint32(numbers(bytes, u32::from_le_bytes)),
            Datatype::Uint64 => Self::Uint64(numbers(bytes, u64::from_le_bytes)),
            Datatype::Int16 => Self::Int16(numbers(bytes, i16::from_le_bytes)),
            Datatype::Int32 => Self::Int32(numbers(bytes, i32::from_le_bytes)),
            Datatype::Int64 => Self::Int64(numbers(bytes, i64::from_le_bytes)),
            Datatype::Fp16 => Self::Fp16(numbers(bytes, f16::from_le_bytes)),
            Datatype::Bf16 => Self::Bf16(numbers(bytes, bf16::from_le_bytes)),
            Datatype::Fp32 => Self::Fp32(numbers(bytes, f32::from_le_bytes)),
            Datatype::Fp64 => Self::Fp64(numbers(bytes, f64::from_le_bytes)),
            Datatype::Bytes => Self::Bytes(strings(bytes, count)?),
        })
    }

    /// The datatype in binary form: JSON values are `BYTES` with their text.
    #[must_use]
    pub fn binary_datatype(&self) -> Datatype {
        if matches!(self, Self::Json(_)) { Datatype::Bytes } else { self.datatype() }
    }

    /// How many bytes [`Data::write_binary`] writes.
    #[must_use]
    pub fn binary_len(&self) -> usize {
        match (self, self.binary_datatype().size()) {
            (Self::Bytes(elements) | Self::Json(Json { texts: elements, .. }), _) => {
                elements.iter().map(|element| element.len() + 4).sum()
            }
            (_, Some(size)) => self.len() * size,
            (_, None) => 0,
        }
    }

    /// Appends the elements in binary form.
    pub fn write_binary(&self, out: &mut BytesMut) {
        out.reserve(self.binary_len());
        match self {
            Self::Bytes(elements) | Self::Json(Json { texts: elements, .. }) => {
                for element in elements {
                    // An element comes from a body or a model; neither contains 4 GiB.
                    out.put_u32_le(u32::try_from(element.len()).unwrap_or(u32::MAX));
                    out.put_slice(element);
                }
            }
            Self::Bool(elements) => elements.iter().for_each(|e| out.put_u8(u8::from(*e))),
            Self::Uint8(elements) => out.put_slice(elements),
            Self::Int8(elements) => put(out, elements, i8::to_le_bytes),
            Self::Uint16(elements) => put(out, elements, u16::to_le_bytes),
            Self::Uint32(elements) => put(out, elements, u32::to_le_bytes),
            Self::Uint64(elements) => put(out, elements, u64::to_le_bytes),
            Self::Int16(elements) => put(out, elements, i16::to_le_bytes),
            Self::Int32(elements) => put(out, elements, i32::to_le_bytes),
            Self::Int64(elements) => put(out, elements, i64::to_le_bytes),
            Self::Fp16(elements) => put(out, elements, f16::to_le_bytes),
            Self::Bf16(elements) => put(out, elements, bf16::to_le_bytes),
            Self::Fp32(elements) => put(out, elements, f32::to_le_bytes),
            Self::Fp64(elements) => put(out, elements, f64::to_le_bytes),
        }
    }

    /// An empty list of a type.
    #[must_use]
    pub fn empty(datatype: Datatype) -> Self {
        Self::zeros(datatype, 0)
    }

    /// `count` elements that are zero, false or empty.
    #[must_use]
    pub fn zeros(datatype: Datatype, count: usize) -> Self {
        match datatype {
            Datatype::Bool => Self::Bool(vec![false; count]),
            Datatype::Uint8 => Self::Uint8(vec![0; count]),
            Datatype::Uint16 => Self::Uint16(vec![0; count]),
            Datatype::Uint32 => Self::Uint32(vec![0; count]),
            Datatype::Uint64 => Self::Uint64(vec![0; count]),
            Datatype::Int8 => Self::Int8(vec![0; count]),
            Datatype::Int16 => Self::Int16(vec![0; count]),
            Datatype::Int32 => Self::Int32(vec![0; count]),
            Datatype::Int64 => Self::Int64(vec![0; count]),
            Datatype::Fp16 => Self::Fp16(vec![f16::ZERO; count]),
            Datatype::Bf16 => Self::Bf16(vec![bf16::ZERO; count]),
            Datatype::Fp32 => Self::Fp32(vec![0.0; count]),
            Datatype::Fp64 => Self::Fp64(vec![0.0; count]),
            Datatype::Bytes => Self::Bytes(vec![Bytes::new(); count]),
        }
    }
}

fn numbers<T, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

/// Block by block, so that the compiler can turn it into memory copies.
fn put<T: Copy, const N: usize>(out: &mut BytesMut, elements: &[T], write: impl Fn(T) -> [u8; N]) {
    const BLOCK: usize = 512;
    for chunk in elements.chunks(BLOCK / N) {
        let mut block = [0; BLOCK];
        for (place, element) in block.as_chunks_mut::<N>().0.iter_mut().zip(chunk) {
            *place = write(*element);
        }
        out.put_slice(&block[..chunk.len() * N]);
    }
}

fn bools(bytes: &[u8]) -> Result<Vec<bool>, Malformed> {
    if let Some(place) = bytes.iter().position(|byte| *byte > 1) {
        return Err(Malformed(format!("element {place} is {}; a BOOL is 0 or 1", bytes[place])));
    }
    Ok(bytes.iter().map(|byte| *byte == 1).collect())
}

fn strings(bytes: &Bytes, count: usize) -> Result<Vec<Bytes>, Malformed> {
    // Each element takes at least the four bytes of its length, so a shape cannot request more memory.
    if count > bytes.len() / 4 {
        return Err(Malformed(format!("{count} elements of BYTES do not fit into the {} bytes sent", bytes.len())));
    }
    let mut elements = Vec::with_capacity(count);
    let mut at = 0;
    for place in 0..count {
        let Some(length) = bytes.get(at..at + 4).and_then(|length| length.try_into().ok()).map(u32::from_le_bytes)
        else {
            return Err(Malformed(format!("the bytes end before the length of element {place}")));
        };
        let start = at + 4;
        let end = start.saturating_add(length as usize);
        if end > bytes.len() {
            return Err(Malformed(format!(
                "element {place} claims {length} bytes, only {} are left",
                bytes.len() - start
            )));
        }
        elements.push(bytes.slice(start..end));
        at = end;
    }
    if at == bytes.len() {
        Ok(elements)
    } else {
        Err(Malformed(format!("{} bytes are left after the last of {count} elements", bytes.len() - at)))
    }
}
