//! The protocols: listeners, decoding and encoding of requests, and the memory for bodies.

pub(crate) mod app;
pub(crate) mod budget;
pub(crate) mod grpc;
pub(crate) mod inflate;
pub(crate) mod listen;
pub(crate) mod rest;
