//! The numbers of small constants.

use std::io;

use super::walk::{Field, Walk};

/// Constants with more numbers are not read.
const MOST: usize = 16;

/// The name of a tensor, and its numbers if there are few and they are said in the file. Of a fraction only the
/// sign is kept, as 1 or -1.
pub(super) fn tensor(walk: &mut Walk, end: u64) -> io::Result<(Option<String>, Option<Vec<i64>>)> {
    let (mut name, mut count, mut kind) = (None, 1u64, 0);
    let mut numbers = Vec::new();
    while let Some(field) = walk.next(end)? {
        let is_small = is_small(walk, field);
        match field.number {
            1 => count = walk.integers(field)?.into_iter().fold(count, |count, size| count.saturating_mul(size as u64)),
            2 => kind = field.value,
            4 if is_small => numbers = fractions(&walk.bytes(field.end)?, 4),
            5 | 7 if is_small => numbers.extend(walk.integers(field)?),
            8 => name = Some(walk.text(field.end)?),
            9 if is_small => numbers = raw(&walk.bytes(field.end)?, kind),
            10 if is_small => numbers = fractions(&walk.bytes(field.end)?, 8),
            _ => {}
        }
        walk.skip_to(field.end)?;
    }
    let is_whole = count <= MOST as u64 && numbers.len() as u64 == count;
    Ok((name, is_whole.then_some(numbers)))
}

/// The numbers of an attribute's field, if it has such.
pub(super) fn of_attribute(walk: &mut Walk, field: Field) -> io::Result<Option<Vec<i64>>> {
    match field.number {
        2 | 7 if is_small(walk, field) => Ok(Some(fractions(&walk.bytes(field.end)?, 4))),
        3 => Ok(Some(vec![field.value.cast_signed()])),
        5 => Ok(tensor(walk, field.end)?.1),
        8 => walk.integers(field).map(Some),
        _ => Ok(None),
    }
}

/// Whether a field may hold the numbers of a small constant.
fn is_small(walk: &Walk, field: Field) -> bool {
    field.end.saturating_sub(walk.at()) <= 10 * MOST as u64
}

/// Numbers as they lie in memory, of a type that ONNX counts as `kind`.
fn raw(bytes: &[u8], kind: u64) -> Vec<i64> {
    match kind {
        1 => fractions(bytes, 4),
        6 => bytes.as_chunks().0.iter().map(|number| i64::from(i32::from_le_bytes(*number))).collect(),
        7 => bytes.as_chunks().0.iter().map(|number| i64::from_le_bytes(*number)).collect(),
        11 => fractions(bytes, 8),
        _ => Vec::new(),
    }
}

fn fractions(bytes: &[u8], size: usize) -> Vec<i64> {
    let number = |bytes: &[u8]| match bytes.try_into() {
        Ok(single) => f64::from(f32::from_le_bytes(single)),
        Err(_) => bytes.try_into().map_or(f64::NAN, f64::from_le_bytes),
    };
    let sign = |number: f64| if number >= 0.0 { 1 } else { -1 };
    bytes.chunks(size).map(|bytes| sign(number(bytes))).collect()
}
