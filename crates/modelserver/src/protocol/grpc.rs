//! gRPC, on the same port as HTTP: the Open Inference Protocol with Triton's methods beside it, health and
//! reflection.
//!
//! What a method does is elsewhere; here a request finds its service, and gets its bounds: in size, in memory,
//! and in time unless it is a stream.

mod convert;
mod deadline;
mod describe;
mod health;
mod infer;
mod inflated;
mod kept;
mod messages;
mod metered;
mod reading;
mod reflection;
mod refusal;
mod service;
mod stream;
mod unary;

use std::{sync::Arc, time::Duration};

pub use messages::{health_proto, proto};
pub use reflection::{Reflected, reflect};

use api::{replica::NOT_BEGUN_HEADER, words};
use deadline::Deadline;
use hyper::body::Incoming;
use proto::grpc_inference_service_server::{GrpcInferenceServiceServer, SERVICE_NAME};
use refusal::refused;
use tonic::{
    Status, body::Body as GrpcBody, codec::CompressionEncoding, metadata::MetadataValue, server::NamedService,
};
use tower::Service as _;

use crate::{
    error::InferError,
    protocol::{
        app::App,
        budget::{Budget, Refused},
        rest::answer::{Answer, Body},
    },
    run::caller::Caller,
};

/// The method that the server is for.
const PREDICT: &str = "ModelInfer";

/// The one method whose requests go on for as long as the client likes.
const STREAM: &str = "ModelStreamInfer";

/// Whether a method changes what is served.
pub(crate) fn changes(path: &str) -> bool {
    path.contains("/RepositoryModel")
}

/// The answer to a request whose metadata is too large, or that is one too many. Nothing of the latter was begun.
pub(crate) fn refuse(words: &str, is_busy: bool) -> Answer {
    let mut status = Status::resource_exhausted(words);
    if is_busy {
        status.metadata_mut().insert(NOT_BEGUN_HEADER, MetadataValue::from_static("1"));
    }
    refused(status)
}

/// The answer to a request that a web page of elsewhere may have sent.
pub(crate) fn not_admitted(words: String) -> Answer {
    refused(Status::permission_denied(words))
}

/// Answers a gRPC request within the time that its caller gives it.
pub(crate) async fn answer(app: Arc<App>, caller: Caller, request: http::Request<Incoming>) -> Answer {
    match Deadline::of(request.headers()) {
        Ok(None) => answer_in_time(app, caller, request).await,
        Ok(Some(deadline)) => deadline.hold(answer_in_time(app, caller, request)).await,
        Err(words) => refused(Status::invalid_argument(words)),
    }
}

async fn answer_in_time(app: Arc<App>, caller: Caller, request: http::Request<Incoming>) -> Answer {
    let mut parts = request.uri().path().splitn(3, '/').skip(1);
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        (SERVICE_NAME, PREDICT) if unary::is_plain(&request) => {
            unary::answer(app, caller, request).await.map(Body::Grpc)
        }
        (SERVICE_NAME, STREAM) => streamed(app, caller, request).await,
        (SERVICE_NAME, PREDICT) => compressed(app, caller, request).await,
        (SERVICE_NAME, method) if service::METHODS.contains(&method) => single(app, caller, request).await,
        (SERVICE_NAME, method) => refused(Status::unimplemented(words::no_method(method))),
        (health::Server::NAME, _) => health::answer(app, request).await.map(Body::Grpc),
        (reflection::V1 | reflection::V1_ALPHA, _) => reflection::answer(request).await.map(Body::Grpc),
        (other, _) => refused(Status::unimplemented(words::no_service(other, SERVICE_NAME))),
    }
}

/// A prediction whose message is compressed.
async fn compressed(app: Arc<App>, caller: Caller, mut request: http::Request<Incoming>) -> Answer {
    let reading = Arc::new(reading::Reading::new(Arc::clone(&app.metrics)));
    request.extensions_mut().insert(Arc::clone(&reading));
    let (answer, broke_off) = counting(app, caller, request).await;
    if !broke_off {
        reading.complete();
    }
    answer
}

async fn single(app: Arc<App>, caller: Caller, request: http::Request<Incoming>) -> Answer {
    counting(app, caller, request).await.0
}

/// The answer, and whether the client left before its message was there.
async fn counting(app: Arc<App>, caller: Caller, request: http::Request<Incoming>) -> (Answer, bool) {
    // The run has its own deadline; this one is for messages that do not come.
    let longest = Duration::from_millis(app.config.request_timeout_ms.saturating_mul(2));
    let (request, meter) = metered::meter(request, &app.budget);
    let (request, encoding) = inflated::inflated(request, app.config.body_limit_bytes);
    let budget = app.budget.clone();
    let answer = match tokio::time::timeout(longest, server(app, caller, encoding).call(request)).await {
        Ok(Ok(answer)) => counted(answer, &budget),
        Ok(Err(never)) => match never {},
        Err(_) => {
            refused(Status::deadline_exceeded(format!("the message took longer than {} ms", longest.as_millis())))
        }
    };
    (answer, meter.broke_off())
}

/// Each message is bounded; how many come one after the other is not.
async fn streamed(app: Arc<App>, caller: Caller, request: http::Request<Incoming>) -> Answer {
    let millis = Duration::from_millis;
    let (mut request, meter) = metered::meter(request, &app.budget);
    request.body_mut().limit_messages(millis(app.config.body_timeout_ms), millis(app.config.request_timeout_ms));
    request.extensions_mut().insert(meter);
    // The answers are not compressed: whether to is said once for all of them, before any of their sizes is known.
    let (request, _) = inflated::inflated(request, app.config.body_limit_bytes);
    let budget = app.budget.clone();
    match server(app, caller, None).call(request).await {
        Ok(answer) => counted(answer, &budget),
        Err(never) => match never {},
    }
}

fn counted(answer: http::Response<GrpcBody>, budget: &Budget) -> Answer {
    answer.map(|body| Body::Grpc(kept::Kept::body(body, budget)))
}

/// The service; `encoding` is that of the request's messages.
fn server(
    app: Arc<App>,
    caller: Caller,
    encoding: Option<CompressionEncoding>,
) -> GrpcInferenceServiceServer<service::Inference> {
    let limit = app.config.body_limit_bytes;
    let server = GrpcInferenceServiceServer::new(service::Inference { app, caller })
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate);
    // Nearly every client says that it could read compressed answers; one that compresses wants them.
    match encoding {
        Some(encoding) => server.send_compressed(encoding),
        None => server,
    }
}

impl From<Refused> for Status {
    fn from(why: Refused) -> Self {
        match why {
            Refused::Spent(_) => Self::resource_exhausted(why.to_string()),
            Refused::Slow(_) => Self::deadline_exceeded(why.to_string()),
        }
    }
}

impl From<InferError> for Status {
    fn from(error: InferError) -> Self {
        let words = error.to_string();
        let not_begun =
            matches!(error, InferError::NotReady(_) | InferError::QueueFull { .. } | InferError::MemoryFull(_));
        let mut status = match error {
            InferError::Invalid(_) => Self::invalid_argument(words),
            InferError::NotFound(_) => Self::not_found(words),
            InferError::NotReady(_) => Self::unavailable(words),
            InferError::QueueFull { .. } | InferError::MemoryFull(_) => Self::resource_exhausted(words),
            InferError::TimedOut(_) => Self::deadline_exceeded(words),
            InferError::Unsupported(_) => Self::unimplemented(words),
            InferError::Failed(_) => Self::internal(words),
        };
        if not_begun {
            status.metadata_mut().insert(NOT_BEGUN_HEADER, MetadataValue::from_static("1"));
        }
        status
    }
}
