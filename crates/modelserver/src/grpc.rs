//! The Open Inference Protocol over gRPC, on the same port as HTTP.

mod convert;
mod metered;

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

use std::{sync::Arc, time::Duration};

use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse,
    grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
};
use tonic::{Request, Response, Status};
use tower::Service as _;

use crate::{
    app::App,
    caller::Caller,
    error::InferError,
    rest::{Answer, Body},
};

/// Where the methods are.
const SERVICE: &str = "/inference.GRPCInferenceService/";

/// Whether a request speaks gRPC.
pub(crate) fn is_grpc(request: &http::Request<Incoming>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a gRPC request.
pub(crate) async fn answer(app: Arc<App>, caller: Caller, request: http::Request<Incoming>) -> Answer {
    if !request.uri().path().starts_with(SERVICE) {
        let known = format!("{} is not served here; {SERVICE} is", request.uri().path());
        return Status::unimplemented(known).into_http::<tonic::body::Body>().map(Body::Grpc);
    }
    let limit = app.config.body_limit_bytes;
    // The run has its own deadline; this one is for messages that do not come.
    let longest = Duration::from_millis(app.config.request_timeout_ms.saturating_mul(2));
    let (request, _hold) = metered::meter(request, &app.budget);
    let mut service = GrpcInferenceServiceServer::new(Inference { app, caller })
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX);
    match tokio::time::timeout(longest, service.call(request)).await {
        Ok(Ok(answer)) => answer.map(Body::Grpc),
        Ok(Err(never)) => match never {},
        Err(_) => {
            let words = format!("the message took longer than {} ms", longest.as_millis());
            Status::deadline_exceeded(words).into_http::<tonic::body::Body>().map(Body::Grpc)
        }
    }
}

struct Inference {
    app: Arc<App>,
    caller: Caller,
}

impl From<InferError> for Status {
    fn from(error: InferError) -> Self {
        let words = error.to_string();
        match error {
            InferError::Invalid(_) => Self::invalid_argument(words),
            InferError::NotFound(_) => Self::not_found(words),
            InferError::NotReady(_) => Self::unavailable(words),
            InferError::QueueFull { .. } => Self::resource_exhausted(words),
            InferError::TimedOut(_) => Self::deadline_exceeded(words),
            InferError::Unsupported(_) => Self::unimplemented(words),
            InferError::Failed(_) => Self::internal(words),
        }
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.app.is_ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = match self.app.model_ready(&name, Some(&version)) {
            Ok(()) => true,
            Err(InferError::NotReady(_)) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let api::inference::ServerMetadata { name, version, extensions } = self.app.metadata();
        Ok(Response::new(ServerMetadataResponse { name, version, extensions }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let (model, versions) = self.app.models.find(&name, Some(&version))?;
        Ok(Response::new(convert::metadata(model.metadata(&name, versions.names()))))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let mut request = request.into_inner();
        let name = std::mem::take(&mut request.model_name);
        let (model, _) = self.app.models.find(&name, Some(&request.model_version))?;
        let raw = !request.raw_input_contents.is_empty();
        let request = convert::request(request).inspect_err(|error| model.metrics.refused(error))?;
        let response = self.app.infer(&name, &model, request, self.caller).await?;
        Ok(Response::new(convert::response(response, raw)))
    }
}
