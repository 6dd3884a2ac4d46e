//! gRPC's own protocol of health, for those who probe with it: the whole server, its services, each model.

use std::sync::Arc;

use futures::{StreamExt as _, stream, stream::BoxStream};
use hyper::body::Incoming;
use tonic::{Request, Response, Status, body::Body as GrpcBody, server::NamedService as _};
use tower::Service as _;

use super::{
    messages::{
        health_proto::{
            HealthCheckRequest, HealthCheckResponse,
            health_check_response::ServingStatus,
            health_server::{Health, HealthServer},
        },
        proto::grpc_inference_service_server::SERVICE_NAME,
    },
    reflection,
};
use crate::{error::InferError, protocol::app::App, repository::report::Changes};

/// The service.
pub(super) type Server = HealthServer<Prober>;

/// Answers a probe.
pub(super) async fn answer(app: Arc<App>, request: http::Request<Incoming>) -> http::Response<GrpcBody> {
    match HealthServer::new(Prober(app)).call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// Looks at the server and its models.
#[derive(Clone)]
pub(super) struct Prober(Arc<App>);

impl Prober {
    /// `None`: there is nothing of this name.
    fn status(&self, service: &str) -> Option<ServingStatus> {
        let serving = |is: bool| if is { ServingStatus::Serving } else { ServingStatus::NotServing };
        let own = ["", SERVICE_NAME, Server::NAME, reflection::V1, reflection::V1_ALPHA];
        if own.contains(&service) {
            return Some(serving(self.0.is_ready()));
        }
        match self.0.model_ready(service, None) {
            Ok(()) => Some(ServingStatus::Serving),
            Err(InferError::NotFound(_)) => None,
            Err(_) => Some(ServingStatus::NotServing),
        }
    }
}

/// One client that watches.
struct Watch {
    prober: Prober,
    service: String,
    changes: Changes,
    told: Option<ServingStatus>,
}

#[tonic::async_trait]
impl Health for Prober {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service) {
            Some(status) => Ok(Response::new(HealthCheckResponse { status: status.into() })),
            None => Err(Status::not_found(format!("there is neither a service nor a model `{service}`"))),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = self.0.reporter.changes();
        let watch = Watch { prober: self.clone(), service: request.into_inner().service, changes, told: None };
        let statuses = stream::unfold(watch, |mut watch| async {
            loop {
                let status = watch.prober.status(&watch.service).unwrap_or(ServingStatus::ServiceUnknown);
                if watch.told != Some(status) {
                    watch.told = Some(status);
                    return Some((Ok(HealthCheckResponse { status: status.into() }), watch));
                }
                if !watch.changes.next().await {
                    return None;
                }
            }
        });
        Ok(Response::new(statuses.boxed()))
    }
}
