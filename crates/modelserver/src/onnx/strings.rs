//! Strings for ONNX Runtime: any UTF-8, zero bytes included.
//!
//! The runtime's usual way to take strings ends each at its first zero byte. Elements that have one are written
//! through the runtime's own buffer for one element, by its length; this is the one place with a raw pointer to a value.

use bytes::Bytes;
use ort::{
    AsPointer as _,
    value::{DynValue, Tensor},
};

use crate::runtime::RuntimeError;

/// A tensor of strings; copies them.
pub(super) fn tensor(name: &str, shape: &[i64], elements: &[Bytes]) -> Result<DynValue, RuntimeError> {
    let mut plain = Vec::with_capacity(elements.len());
    let mut with_zeros = Vec::new();
    for (place, element) in elements.iter().enumerate() {
        let text = std::str::from_utf8(element).map_err(|_| {
            RuntimeError::Rejected(format!("input `{name}`: element {place} is not UTF-8, which ONNX strings are"))
        })?;
        if element.contains(&0) {
            with_zeros.push((place, text));
            plain.push(String::new());
        } else {
            plain.push(text.to_owned());
        }
    }
    let failed = |reason: &str| RuntimeError::Failed(format!("input `{name}`: {reason}"));
    let value = Tensor::from_string_array((shape, plain.as_slice())).map_err(|e| failed(e.message()))?;
    let mut value = value.into_dyn();
    for (place, text) in with_zeros {
        if !write(&mut value, place, text.as_bytes()) {
            return Err(failed(&format!("the runtime has no room for element {place}")));
        }
    }
    Ok(value)
}

/// Writes one element of a tensor of strings; `false` if the runtime refuses.
#[allow(unsafe_code, reason = "the runtime hands out the memory of one element as a pointer")]
fn write(value: &mut DynValue, place: usize, bytes: &[u8]) -> bool {
    let api = ort::api();
    let mut buffer = std::ptr::null_mut();
    // SAFETY: the value is alive and borrowed for this call alone; the runtime checks the place and that these are
    // strings, and on success gives memory for exactly as many bytes as it is asked for.
    unsafe {
        let status = (api.GetResizedStringTensorElementBuffer)(value.ptr_mut(), place, bytes.len(), &raw mut buffer);
        if !status.0.is_null() {
            (api.ReleaseStatus)(status.0);
            return false;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast::<u8>(), bytes.len());
    }
    true
}
