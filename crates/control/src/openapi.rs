//! The OpenAPI document, generated from the handlers, and a page to try the API.

mod request;

use std::sync::LazyLock;

use axum::{
    Router,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, header::CONTENT_TYPE};
use serde_json::Value;
use utoipa::{
    OpenApi as _,
    openapi::tag::{Tag, TagBuilder},
};
use utoipa_swagger_ui::SwaggerUi;

use crate::http::{Shared, documented};

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Modelway control plane",
    description = "Turns a trained model into a live endpoint. Every error is `application/problem+json` (RFC 9457) with a stable `code`; all faults of a payload are reported at once, each with its JSON pointer. Times are in UTC.",
    license(name = "MIT", identifier = "MIT"),
))]
struct Described;

/// The OpenAPI 3.1 document of the control plane.
#[must_use]
pub fn openapi() -> Value {
    let mut document = Described::openapi();
    document.merge(documented().into_openapi());
    document.tags = Some(tags());
    let mut document = serde_json::to_value(document).unwrap_or_default();
    request::tighten(&mut document);
    document
}

fn tags() -> Vec<Tag> {
    [
        ("deployments", "Deployments: specification and status"),
        ("models", "The registry: models and their immutable versions"),
        ("events", "Events of deployments"),
        ("strays", "Replicas that belong to another database"),
        ("routes", "Routes for gateways"),
        ("health", "Health and metrics"),
    ]
    .map(|(name, description)| TagBuilder::new().name(name).description(Some(description)).build())
    .into()
}

/// `GET /openapi.json`
pub(crate) async fn document() -> Response {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        // The document consists of our own text; a snapshot test covers it.
        openapi().to_string().into()
    });
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT.clone()).into_response()
}

/// The page at `/docs`. It is embedded in the binary, so it works without internet access.
pub(crate) fn page() -> Router<Shared> {
    SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")).into()
}
