//! Generates inputs that fit a signature, for warm-ups and for recording examples.

use bytes::Bytes;
use half::{bf16, f16};
use inference::{Data, Datatype, Tensor, TensorMetadata};

/// Generated inputs with more elements than this are treated as an attack on the memory.
pub(crate) const MOST_ELEMENTS: i64 = 1 << 22;

/// Texts that differ in everything that a model may use: words, case, length, separators, non-ASCII letters.
const TEXTS: [&str; 16] = [
    "",
    "a",
    "a rose is a rose",
    "UPPER Case and lower",
    "one,two;three\tfour|five",
    "  spaces  at   both ends  ",
    "Straße nach München",
    "日本 の 文字",
    "x",
    "3.5",
    "2026-11-28 12:00",
    "user@example.com/path?q=1",
    "naïve café, déjà vu",
    "line one\nline two\nline three",
    "🙂 emoji 🙂🙂",
    "a much longer text, of which no other one here has as many words as it has, so that it is the widest of all",
];

/// Ones in the shape of an input, every variable dimension 1. `None` if its fixed dimensions are huge.
pub(crate) fn ones(input: &TensorMetadata) -> Option<Tensor> {
    let shape: Vec<i64> = input.shape.iter().map(|dimension| if *dimension < 0 { 1 } else { *dimension }).collect();
    let count = shape.iter().try_fold(1i64, |count, dimension| count.checked_mul(*dimension))?;
    if count > MOST_ELEMENTS {
        return None;
    }
    let count = usize::try_from(count).ok()?;
    Some(Tensor { name: input.name.clone(), shape, data: fill(input.datatype, count, || 1.0) })
}

/// This many ones.
pub(crate) fn all_one(datatype: Datatype, count: usize) -> Data {
    fill(datatype, count, || 1.0)
}

/// Generates inputs, the same ones in every run.
#[derive(Debug)]
pub(crate) struct Generator(u64);

impl Generator {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// A tensor for an input: two rows if the first dimension is variable, otherwise one.
    pub(crate) fn tensor(&mut self, input: &TensorMetadata) -> Tensor {
        let size = |(place, dimension): (usize, &i64)| match *dimension {
            ..0 if place == 0 => 2,
            ..0 => 1,
            fixed => fixed,
        };
        let shape: Vec<i64> = input.shape.iter().enumerate().map(size).collect();
        let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
        Tensor { name: input.name.clone(), shape, data: fill(input.datatype, count, || self.number()) }
    }

    /// One row for an input whose first dimension counts rows; every other variable dimension is `inner`. Floats are
    /// spread by `scale` around zero; strings are numbers or `texts`. `None` if a row is huge.
    pub(crate) fn row(&mut self, input: &TensorMetadata, inner: i64, scale: f64, texts: bool) -> Option<Tensor> {
        let size = |(place, dimension): (usize, &i64)| match *dimension {
            _ if place == 0 => 1,
            ..0 => inner,
            fixed => fixed,
        };
        let shape: Vec<i64> = input.shape.iter().enumerate().map(size).collect();
        let count = shape.iter().try_fold(1i64, |count, dimension| count.checked_mul(*dimension))?;
        if count > MOST_ELEMENTS {
            return None;
        }
        let count = usize::try_from(count).ok()?;
        if texts && input.datatype == Datatype::Bytes {
            let data = Data::Bytes((0..count).map(|_| Bytes::from_static(self.text().as_bytes())).collect());
            return Some(Tensor { name: input.name.clone(), shape, data });
        }
        let floating = matches!(input.datatype, Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64);
        let next = || if floating { (self.number() - 4.0) * scale } else { self.number() };
        let data = fill(input.datatype, count, next);
        Some(Tensor { name: input.name.clone(), shape, data })
    }

    /// This many elements.
    pub(crate) fn data(&mut self, datatype: Datatype, count: usize) -> Data {
        fill(datatype, count, || self.number())
    }

    fn text(&mut self) -> &'static str {
        TEXTS[self.next() % TEXTS.len()]
    }

    /// From 0 to 8, in steps of an eighth.
    fn number(&mut self) -> f64 {
        f64::from(u8::try_from(self.next()).unwrap_or(0)) / 8.0
    }

    /// From 0 to 63. (xorshift64)
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 58).unwrap_or(0)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the numbers are from 0 to 8, which every type holds"
)]
fn fill(datatype: Datatype, count: usize, mut next: impl FnMut() -> f64) -> Data {
    fn many<T>(count: usize, next: impl FnMut() -> T) -> Vec<T> {
        std::iter::repeat_with(next).take(count).collect()
    }
    match datatype {
        Datatype::Bool => Data::Bool(many(count, || next() >= 1.0)),
        Datatype::Uint8 => Data::Uint8(many(count, || next() as u8)),
        Datatype::Uint16 => Data::Uint16(many(count, || next() as u16)),
        Datatype::Uint32 => Data::Uint32(many(count, || next() as u32)),
        Datatype::Uint64 => Data::Uint64(many(count, || next() as u64)),
        Datatype::Int8 => Data::Int8(many(count, || next() as i8)),
        Datatype::Int16 => Data::Int16(many(count, || next() as i16)),
        Datatype::Int32 => Data::Int32(many(count, || next() as i32)),
        Datatype::Int64 => Data::Int64(many(count, || next() as i64)),
        Datatype::Fp16 => Data::Fp16(many(count, || f16::from_f64(next()))),
        Datatype::Bf16 => Data::Bf16(many(count, || bf16::from_f64(next()))),
        Datatype::Fp32 => Data::Fp32(many(count, || next() as f32)),
        Datatype::Fp64 => Data::Fp64(many(count, next)),
        Datatype::Bytes => Data::Bytes(many(count, || Bytes::from((next() as u8).to_string()))),
    }
}
