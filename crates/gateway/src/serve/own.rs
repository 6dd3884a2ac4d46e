//! What the gateway answers by itself: health, the list of models, metrics; and their like over gRPC.

use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{app::App, metrics};
use crate::{
    forward::{gateway::Gateway, reply::OutBody},
    wire::{
        grpc,
        path::Own,
        refusal::{Refusal, json},
        scan::Scanner,
    },
};

/// The most names that `GET /v1/models` lists.
const LISTED: usize = 10_000;

/// The longest message of a health check, and how long it may take.
const LONGEST_CHECK: usize = 4 << 10;
const CHECK_PATIENCE: Duration = Duration::from_secs(10);

const SERVICE: &str = "/inference.GRPCInferenceService/";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// The methods that a replica answers.
const OF_MODELS: [&str; 6] =
    ["ModelInfer", "ModelStreamInfer", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"];

/// The extensions of the protocol that work through the gateway, as Triton names them. A server's `model_repository`
/// does not: models come and go with their deployments.
const EXTENSIONS: [&str; 6] =
    ["binary_tensor_data", "generate", "model_configuration", "parameters", "schedule_policy", "statistics"];

/// Answers with a page.
pub(crate) async fn answer(app: &Arc<App>, page: Own, method: &Method) -> Result<Response<OutBody>, Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let words = "this path answers GET only";
        return Err(Refusal { allow: Some("GET, HEAD"), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, words) });
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
        Own::Models => json(StatusCode::OK, models(app).await),
        Own::Metrics => {
            let mut response = json(StatusCode::OK, metrics::scrape(Arc::clone(app)).await);
            let kind = HeaderValue::from_static(base::metrics::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
    };
    Ok(response.map(OutBody::own))
}

/// The list of models. Writing it takes a while where there are many: requests must not wait behind it, and it is written
/// for one client at a time.
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

/// Names that look like `name`. Nobody looks while somebody else does: a flood of wrong names costs one thread at most.
pub(crate) async fn near(app: &Arc<App>, name: &str) -> Vec<String> {
    let Ok(_turn) = app.names.try_acquire() else { return Vec::new() };
    let (table, name) = (Arc::clone(&app.gateway.table), name.to_owned());
    app.gateway.tasks.spawn_blocking(move || table.near_names(&name)).await.unwrap_or_default()
}

/// The method of a path that a replica answers.
pub(crate) fn model_method(path: &str) -> Option<&'static str> {
    let method = path.strip_prefix(SERVICE)?;
    OF_MODELS.into_iter().find(|known| *known == method)
}

/// Answers a gRPC call that no replica is asked for.
pub(crate) async fn answer_grpc(gateway: &Gateway, head: &Parts, body: Incoming) -> Result<Response<OutBody>, Refusal> {
    let is_ready = gateway.not_ready().is_none();
    let path = head.uri.path();
    if path == HEALTH {
        let encoding = head.headers.get(&grpc::ENCODING).map(HeaderValue::as_bytes);
        let service = service(body, encoding).await?;
        let serves = match &*service {
            "" | "inference.GRPCInferenceService" | "grpc.health.v1.Health" => is_ready,
            name => match gateway.table.find(name) {
                Some(endpoint) => endpoint.total_replicas() > 0,
                None => {
                    let words = format!("there is neither a service nor a model `{name}`");
                    return Err(Refusal::new(StatusCode::NOT_FOUND, words));
                }
            },
        };
        return Ok(message(&[0x08, if serves { 1 } else { 2 }]));
    }
    match path.strip_prefix(SERVICE) {
        Some("ServerLive") => Ok(message(&[0x08, 1])),
        Some("ServerReady") => Ok(message(if is_ready { &[0x08, 1] } else { &[] })),
        Some("ServerMetadata") => Ok(message(&grpc::server_metadata(&EXTENSIONS))),
        Some(method) => {
            let words = format!("`{method}` concerns one server; the gateway stands before many");
            Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, words))
        }
        None => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, format!("this gateway serves {SERVICE}* only"))),
    }
}

/// The answer to `ModelReady` of a model that nobody has, or that no replica serves: as Triton, no error.
pub(crate) fn model_not_ready() -> Response<OutBody> {
    message(&[])
}

/// The service that a health check asks for: field 1 of its message, as a model's name is.
async fn service(mut body: Incoming, encoding: Option<&[u8]>) -> Result<String, Refusal> {
    let mut scanner = Scanner::new(encoding);
    let reading = async {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
            let data = frame.into_data().unwrap_or_default();
            if scanner.read(&data)? < data.len() || scanner.left() > LONGEST_CHECK {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "this is no HealthCheckRequest"));
            }
        }
        if scanner.whole() {
            Ok(scanner.name())
        } else {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "the call ended early"))
        }
    };
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the message of the health check came too slowly");
    tokio::time::timeout(CHECK_PATIENCE, reading).await.map_err(late)?
}

fn message(bytes: &[u8]) -> Response<OutBody> {
    let mut response = Response::new(OutBody::Message(Some(grpc::frame(bytes)), Some(Box::new(grpc::all_well()))));
    response.headers_mut().insert(CONTENT_TYPE, grpc::KIND);
    response
}
