//! Parsing and formatting: paths, headers and first messages of requests, and errors.
//!
//! **Invariant:** nothing here knows an endpoint, a connection or a setting.

pub(crate) mod alarm;
pub(crate) mod grpc;
pub(crate) mod headers;
pub(crate) mod pace;
pub(crate) mod path;
pub(crate) mod refusal;
pub(crate) mod scan;
