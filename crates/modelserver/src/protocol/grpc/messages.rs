//! The messages of gRPC, as the compiler of protocol buffers makes them, and what stands before each on the wire.

/// The bytes before a message: one that says whether it is compressed, and four with its length.
pub(super) const PREFIX: usize = 5;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated from proto/inference.proto"
)]
pub mod proto {
    tonic::include_proto!("inference");
}

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated from proto/health.proto"
)]
pub mod health_proto {
    tonic::include_proto!("grpc.health.v1");
}
