//! A refusal, as gRPC says it.

use tonic::{Status, body::Body as GrpcBody};

use crate::protocol::rest::answer::{Answer, Body};

pub(super) fn refused(status: Status) -> Answer {
    status.into_http::<GrpcBody>().map(Body::Grpc)
}
