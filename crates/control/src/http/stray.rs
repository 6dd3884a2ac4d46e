//! Replicas that do not belong to this database: `/v1/strays`.

use api::{
    Problem,
    stray::{EndStrays, Stray},
};
use axum::{Json as JsonAnswer, extract::State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Shared, body::Json, query::Query};
use crate::error::Error;

/// Maximum number of strays in one request.
const MOST: usize = 1_000;

/// All strays, sorted by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct StrayList {
    pub(crate) items: Vec<Stray>,
    /// Always null: all strays are on one page.
    pub(crate) next: Option<i64>,
}

/// List stray replicas
///
/// Replicas on the machine of a worker of this database that belong to another database, or to this one before it was
/// restored from an older copy. They get no requests, and the worker does not change them.
#[utoipa::path(
    get, path = "/v1/strays", tag = "strays", operation_id = "listStrays",
    responses(
        (status = 200, description = "All strays", body = StrayList),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(app): State<Shared>, query: Query) -> Result<JsonAnswer<StrayList>, Error> {
    query.finish()?;
    Ok(JsonAnswer(StrayList { items: app.store.stray_list().await?, next: None }))
}

/// End stray replicas
///
/// They drain and end at the next scan of their worker (`worker.scan_interval_ms`). This cannot be undone.
#[utoipa::path(
    post, path = "/v1/strays/end", tag = "strays", operation_id = "endStrays",
    request_body = EndStrays,
    responses(
        (status = 202, description = "They will be ended", body = StrayList),
        (status = 404, description = "One of them does not exist; none is ended", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn end(
    State(app): State<Shared>,
    query: Query,
    Json(body): Json,
) -> Result<(StatusCode, JsonAnswer<StrayList>), Error> {
    query.finish()?;
    let body: EndStrays =
        serde_json::from_value(body).map_err(|error| Error::payload("", "invalid_payload", error.to_string()))?;
    if body.replicas.is_empty() || body.replicas.len() > MOST {
        let detail = format!("name 1 to {MOST} replicas, as GET /v1/strays lists them");
        return Err(Error::payload("/replicas", "out_of_range", detail));
    }
    app.store.strays_end(&body.replicas).await?;
    let mut items = app.store.stray_list().await?;
    items.retain(|stray| body.replicas.contains(&stray.replica));
    Ok((StatusCode::ACCEPTED, JsonAnswer(StrayList { items, next: None })))
}
