//! The methods of the inference service: each translates a message, asks, and translates the answer.

use std::sync::Arc;

use http::HeaderMap;
use inference::IGNORED_FIELDS;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    convert, describe,
    infer::{ignored_header, infer},
    messages::proto::{
        ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
        ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
        RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
        RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse,
        ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
        grpc_inference_service_server::GrpcInferenceService,
    },
    metered,
    reading::Reading,
    stream::Stream,
};
use crate::{error::InferError, protocol::app::App, run::caller::Caller};

/// Larger answers are sent plain: tonic compresses a message in one piece, at about 30 MiB a second, and nobody else is
/// answered on its thread meanwhile.
const MOST_COMPRESSED: usize = 1 << 20;

/// The methods that there are.
pub(super) const METHODS: [&str; 12] = [
    "ModelInfer",
    "ModelStreamInfer",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
];

/// The service, for one caller.
pub(super) struct Inference {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    type ModelStreamInferStream = Stream;

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
            // A model that was unloaded, or never there, is not ready: that is an answer, as Triton gives it.
            Err(InferError::NotReady(_) | InferError::NotFound(_)) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let inference::ServerMetadata { name, version, extensions } = self.app.metadata();
        Ok(Response::new(ServerMetadataResponse { name, version, extensions }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        let (model, versions) = self.app.models.described(&name, Some(&version))?;
        Ok(Response::new(convert::metadata(model.metadata(&name, versions.names()))))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.into_inner();
        let config = self.app.model_config(&name, Some(&version))?;
        Ok(Response::new(ModelConfigResponse { config: Some(describe::config(config)) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let model_stats = describe::statistics(&self.app.models, &name, &version)?;
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        if let Some(reading) = request.extensions().get::<Arc<Reading>>() {
            reading.complete();
        }
        let (answer, ignored) = infer(&self.app, self.caller, request.into_inner()).await?;
        let large = answer.encoded_len() > MOST_COMPRESSED;
        let mut response = Response::new(answer);
        if large {
            response.disable_compression();
        }
        if let Some(names) = ignored_header(&ignored) {
            let mut headers = HeaderMap::with_capacity(1);
            headers.insert(IGNORED_FIELDS, names);
            *response.metadata_mut() = MetadataMap::from_headers(headers);
        }
        Ok(response)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Stream>, Status> {
        let meter = request.extensions().get::<metered::Meter>().cloned();
        let stream = Stream::new(Arc::clone(&self.app), self.caller, request.into_inner(), meter);
        Ok(Response::new(stream))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let RepositoryIndexRequest { repository_name: _, ready } = request.into_inner();
        let models = self.app.index(ready).into_iter().map(describe::index_entry).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let RepositoryModelLoadRequest { repository_name: _, model_name, parameters } = request.into_inner();
        // Triton's code and words for what a load brings along and cannot be used; its clients look for both.
        let request = convert::load_request(parameters).map_err(|error| {
            Status::internal(format!("failed to load '{model_name}', failed to poll from model repository: {error}"))
        })?;
        self.app.load(&model_name, request).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let RepositoryModelUnloadRequest { repository_name: _, model_name, parameters } = request.into_inner();
        self.app.unload(&model_name, convert::unload_dependents(&parameters)?).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}
