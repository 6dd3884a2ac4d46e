//! What the gateway answers by itself: health, the list of models, metrics; and their like over gRPC.

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE};

use super::{app::App, metrics};
use crate::{
    forward::{gateway::Gateway, reply::OutBody},
    wire::{
        grpc,
        path::Own,
        refusal::{Refusal, json},
    },
};

/// The most names that `GET /v1/models` lists.
const LISTED: usize = 10_000;

const SERVICE: &str = "/inference.GRPCInferenceService/";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// The methods that a replica answers.
const OF_MODELS: [&str; 6] =
    ["ModelInfer", "ModelStreamInfer", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"];

/// Answers with a page.
pub(crate) async fn answer(app: &Arc<App>, page: Own, method: &Method) -> Result<Response<OutBody>, Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let words = "this path answers GET only";
        return Err(Refusal { allow: Some("GET, HEAD"), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, words) });
    }
    let response = match page {
        Own::Live => json(StatusCode::OK, r#"{"live":true,"status":"ok"}"#),
        Own::Ready => match app.gateway.not_ready() {
            None => json(StatusCode::OK, r#"{"ready":true,"status":"ready"}"#),
            Some(words) => return Err(Refusal::unavailable(words)),
        },
        Own::Server => {
            let server = serde_json::json!({
                "name": "modelway", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"],
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

/// The list of models. Writing it takes a while where there are many, and requests must not wait behind it.
async fn models(app: &Arc<App>) -> String {
    let table = Arc::clone(&app.gateway.table);
    let listing = app.gateway.tasks.spawn_blocking(move || {
        let names = table.sorted.first(LISTED);
        let mut list = serde_json::json!({ "models": names.iter().map(|name| &**name).collect::<Vec<_>>() });
        if names.len() == LISTED {
            list["truncated"] = true.into();
        }
        list.to_string()
    });
    listing.await.unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}

/// Names that look like `name`. Nobody looks while somebody else does: a flood of wrong names costs one thread at most.
pub(crate) async fn near(app: &Arc<App>, name: &str) -> Vec<Arc<str>> {
    let Ok(_turn) = app.names.try_acquire() else { return Vec::new() };
    let (table, name) = (Arc::clone(&app.gateway.table), name.to_owned());
    app.gateway.tasks.spawn_blocking(move || table.sorted.near(&name)).await.unwrap_or_default()
}

/// The method of a path that a replica answers.
pub(crate) fn model_method(path: &str) -> Option<&'static str> {
    let method = path.strip_prefix(SERVICE)?;
    OF_MODELS.into_iter().find(|known| *known == method)
}

/// Answers a gRPC call that no replica is asked for.
pub(crate) fn answer_grpc(gateway: &Gateway, path: &str) -> Result<Response<OutBody>, Refusal> {
    let is_ready = gateway.not_ready().is_none();
    if path == HEALTH {
        return Ok(message(&[0x08, if is_ready { 1 } else { 2 }]));
    }
    match path.strip_prefix(SERVICE) {
        Some("ServerLive") => Ok(message(&[0x08, 1])),
        Some("ServerReady") => Ok(message(if is_ready { &[0x08, 1] } else { &[] })),
        Some("ServerMetadata") => Ok(message(&grpc::server_metadata())),
        Some(method) => {
            let words = format!("`{method}` concerns one server; the gateway stands before many");
            Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, words))
        }
        None => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, format!("this gateway serves {SERVICE}* only"))),
    }
}

fn message(bytes: &[u8]) -> Response<OutBody> {
    let mut response = Response::new(OutBody::Message(Some(grpc::frame(bytes)), Some(Box::new(grpc::all_well()))));
    response.headers_mut().insert(CONTENT_TYPE, grpc::KIND);
    response
}
