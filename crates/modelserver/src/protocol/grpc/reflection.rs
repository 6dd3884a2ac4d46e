//! Reflection: tells clients such as `grpcurl` what services and messages there are, in both of its versions.

use std::sync::OnceLock;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tonic::{Status, body::Body as GrpcBody};
use tonic_reflection::server::{self, Builder};
use tower::{Service as _, util::BoxCloneSyncService};

/// What build.rs compiled out of `proto/`.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The service's name.
pub(super) const V1: &str = "grpc.reflection.v1.ServerReflection";

/// Its name before it was final, by which most clients still ask.
pub(super) const V1_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// What is told of the definitions, message by message.
pub type Reflected = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

type Service = BoxCloneSyncService<http::Request<Incoming>, http::Response<GrpcBody>, std::convert::Infallible>;

/// Both versions, made when the first client asks.
fn services() -> Result<(Service, Service), server::Error> {
    let builder = || Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    Ok((BoxCloneSyncService::new(builder().build_v1()?), BoxCloneSyncService::new(builder().build_v1alpha()?)))
}

/// The same answer, for a gateway, which serves the same protocols.
#[must_use]
pub fn reflect(request: http::Request<Incoming>) -> BoxFuture<'static, http::Response<Reflected>> {
    Box::pin(async { answer(request).await.map(|body| body.map_err(Into::into).boxed_unsync()) })
}

/// Answers a client that asks for definitions.
pub(super) async fn answer(request: http::Request<Incoming>) -> http::Response<GrpcBody> {
    static SERVICES: OnceLock<Result<(Service, Service), server::Error>> = OnceLock::new();
    let (v1, v1_alpha) = match SERVICES.get_or_init(services) {
        Ok(services) => services.clone(),
        Err(error) => return Status::internal(format!("no definitions: {error}")).into_http(),
    };
    let mut service = if request.uri().path()[1..].starts_with(V1_ALPHA) { v1_alpha } else { v1 };
    match service.call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}
