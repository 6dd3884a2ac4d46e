//! The Open Inference Protocol (V2): tensors, requests and responses, in JSON and binary form.
//!
//! A body is JSON, or JSON followed by the bytes of the tensors ("binary tensor data extension"). The bytes are read
//! directly into typed vectors: no generic JSON value is built, and the memory is at most a small multiple of the body.
//! Every error names the tensor, the position and what is wrong. Elements are row-major; numbers in binary form are
//! little-endian.
//!
//! **Invariant:** nothing here knows a model. The model server checks whether a tensor fits a model.
//!
//! Source: Open Inference Protocol v2 (REST), and Triton's binary tensor data extension.

mod binary;
mod datatype;
mod encoded;
mod ignored;
mod json_data;
mod json_fast;
mod json_nested;
mod json_read;
mod json_words;
mod json_write;
mod malformed;
mod message;
mod metadata;
mod parameter;
mod scan;
mod tensor;

#[cfg(test)]
mod tests;

pub use datatype::{Datatype, NotADatatype};
pub use encoded::decode_base64;
pub use ignored::Ignored;
pub use json_nested::nested_data;
pub use json_words::{begins_with_bare_float, replace_bare_floats, restore_bare_floats};
pub use json_write::{Nan, write_nested, write_row};
pub use malformed::Malformed;
pub use message::{Encoded, Request, RequestedOutput, Response, SHARED_MEMORY, no_shared_memory};
pub use metadata::{ModelMetadata, ServerMetadata, TensorMetadata};
pub use parameter::{InputParameters, Parameter, Parameters, parameters_for_python};
pub use tensor::{Data, Json, Tensor, element_count};

/// The header with the length of the JSON if binary tensors follow it.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// The header of an answer with the names of the first ten ignored fields.
pub const IGNORED_FIELDS: &str = "x-modelway-ignored-fields";
