//! The protocols: listening, bytes to requests and back, and the memory of bodies.

pub(crate) mod app;
pub(crate) mod budget;
pub(crate) mod grpc;
pub(crate) mod inflate;
pub(crate) mod listen;
pub(crate) mod rest;
