//! The pages of the gateway itself: health, the list of models, metrics; and the corresponding gRPC methods.

use std::sync::Arc;

use api::words;
use bytes::Bytes;
use futures::{StreamExt as _, future, stream};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
    request::Parts,
};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use hyper::body::Incoming;

use super::{app::App, connection::Conn, health, metrics, served::Answer};
use crate::{
    admit::limits::Admission,
    forward::reply::{BoxBody, OutBody},
    observe::exposition,
    wire::{
        grpc::{self, REFLECTION, REFLECTION_ALPHA, SERVICE},
        path::Own,
        refusal::{Refusal, json},
    },
};

/// Maximum number of names in `GET /v1/models`.
const LISTED: usize = 10_000;

/// The methods that a replica answers.
const OF_MODELS: [&str; 6] =
    ["ModelInfer", "ModelStreamInfer", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"];

/// The protocol extensions that work through the gateway, in Triton's terms. `model_repository` of a server does not,
/// because models exist through deployments.
const EXTENSIONS: [&str; 6] =
    ["binary_tensor_data", "generate", "model_configuration", "parameters", "schedule_policy", "statistics"];

/// Answers with a page.
pub(crate) async fn answer(app: &Arc<App>, page: Own, asked: &Parts) -> Result<Response<OutBody>, Refusal> {
    if page == Own::Asterisk && asked.method != Method::OPTIONS {
        return Err(Refusal::method("*", "OPTIONS", &asked.method));
    }
    if page != Own::Asterisk && !matches!(asked.method, Method::GET | Method::HEAD) {
        // The target of CONNECT is no path.
        let path = Some(asked.uri.path()).filter(|path| !path.is_empty()).unwrap_or("/");
        return Err(Refusal::method(path, "GET, HEAD", &asked.method));
    }
    let response = match page {
        Own::Alive => json(StatusCode::OK, r#"{"status":"alive"}"#),
        Own::Live => json(StatusCode::OK, r#"{"live":true}"#),
        Own::Ready => match app.gateway.not_ready() {
            None => json(StatusCode::OK, r#"{"ready":true}"#),
            Some(words) => {
                let body = serde_json::json!({ "ready": false, "error": words }).to_string();
                Refusal::unavailable(words).into_response().map(|_| body.into())
            }
        },
        Own::Server => {
            let server = serde_json::json!({
                "name": "modelway", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS,
            });
            json(StatusCode::OK, server.to_string())
        }
        Own::Version => {
            let mut response = Response::new(env!("CARGO_PKG_VERSION").into());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            response
        }
        Own::Asterisk => {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(words::METHODS));
            response
        }
        Own::Models => json(StatusCode::OK, models(app).await),
        Own::Metrics => {
            let mut response = json(StatusCode::OK, metrics::of_gateway(app).await);
            let kind = HeaderValue::from_static(base::metrics::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Own::ReplicaMetrics => {
            let mut response = json(StatusCode::OK, metrics::of_replicas(app).await);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
            response
        }
    };
    Ok(response.map(OutBody::own))
}

/// The list of models. Writing a long list takes time: requests must not wait for it, and it is written for one client
/// at a time.
async fn models(app: &Arc<App>) -> String {
    let _turn = app.names.acquire().await;
    let table = Arc::clone(&app.gateway.table);
    let listing = app.gateway.tasks.spawn_blocking(move || {
        let names = table.first_names(LISTED);
        let mut list = serde_json::json!({ "models": names });
        if names.len() == LISTED {
            list["truncated"] = true.into();
        }
        list.to_string()
    });
    listing.await.unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}

/// The method of a path that a replica answers.
pub(crate) fn model_method(path: &str) -> Option<&'static str> {
    let method = path.strip_prefix('/')?.strip_prefix(SERVICE)?.strip_prefix('/')?;
    OF_MODELS.into_iter().find(|known| *known == method)
}

/// Answers a gRPC call that no replica is asked for.
pub(crate) async fn answer_grpc(conn: &Conn, request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
    let app = &conn.app;
    let is_ready = app.gateway.not_ready().is_none();
    let mut parts = request.uri().path().splitn(3, '/').skip(1);
    let response = match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        (SERVICE, "ServerLive") => OutBody::grpc(Some(&[0x08, 1])),
        (SERVICE, "ServerReady") => OutBody::grpc(Some(if is_ready { &[0x08, 1] } else { &[] })),
        (SERVICE, "ServerMetadata") => OutBody::grpc(Some(&grpc::server_metadata(&EXTENSIONS))),
        (SERVICE, method) if method.starts_with("Repository") => {
            let words = format!("{method}: deployments say which models there are, not this protocol");
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, words));
        }
        (SERVICE, method) => return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, words::no_method(method))),
        (health::SERVICE, "Check") => health::check(app, request).await?,
        (health::SERVICE, "Watch") => {
            let place = place(conn)?;
            return health::watch(app, request).await.map(|it| until_end(app, it, place));
        }
        (REFLECTION | REFLECTION_ALPHA, _) => {
            let place = place(conn)?;
            return Ok(until_end(app, (app.reflect)(request).await, place));
        }
        // As tonic has it: no words.
        (health::SERVICE, _) => return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "")),
        (other, _) => return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, words::no_service(other, SERVICE))),
    };
    Ok(response.map(Answer::One))
}

/// A place among the requests in flight, for an answer that may go on for as long as its client likes.
fn place(conn: &Conn) -> Result<Admission, Refusal> {
    let mut admission = Admission::new(&conn.lane.limits);
    admission.enter_own(&conn.lane.gateway.counters)?;
    Ok(admission)
}

/// An answer that may go on for as long as its client likes, and ends with the gateway. It holds its place until then.
fn until_end(app: &Arc<App>, response: Response<BoxBody>, place: Admission) -> Response<Answer> {
    if response.body().is_end_stream() {
        return response.map(Answer::Open);
    }
    let tasks = app.gateway.tasks.clone();
    let end = grpc::trailers(&Refusal::unavailable("this gateway is shutting down"));
    let last = stream::once(future::ready(Ok(Frame::trailers(end))));
    response.map(|body| {
        let frames = BodyStream::new(body).take_until(async move { tasks.stopping().await });
        let frames = frames.inspect(move |_| _ = &place);
        Answer::Open(StreamBody::new(frames.chain(last)).boxed_unsync())
    })
}
