//! Health and metrics.

use api::Problem;
use axum::{
    Json as JsonAnswer,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header::CONTENT_TYPE};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use crate::error::Error;

/// The response of a health check.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: JsonAnswer<Health> = JsonAnswer(Health { status: "ok" });

/// Whether the control plane runs
///
/// Does not check the database, because restarting the control plane would not repair it.
#[utoipa::path(
    get, path = "/health/live", tag = "health", operation_id = "healthLive",
    responses((status = 200, description = "The control plane runs", body = Health))
)]
pub(super) async fn live() -> JsonAnswer<Health> {
    OK
}

/// Whether the control plane can answer requests
#[utoipa::path(
    get, path = "/health/ready", tag = "health", operation_id = "healthReady",
    responses(
        (status = 200, description = "The database answers", body = Health),
        (status = 503, description = "The database does not answer", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ready(State(app): State<Shared>) -> Result<JsonAnswer<Health>, Error> {
    app.ready().await?;
    Ok(OK)
}

/// Metrics in the OpenMetrics text format
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "metrics",
    responses((status = 200, description = "All metrics", body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(State(app): State<Shared>) -> Response {
    let deployments = app.deployment_counts().await;
    let content_type = HeaderValue::from_static(base::metrics::CONTENT_TYPE);
    ([(CONTENT_TYPE, content_type)], app.metrics.text(deployments.as_deref())).into_response()
}
