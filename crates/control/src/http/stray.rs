//! Replicas that are not this database's: `/v1/strays`.

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

/// The most strays that can be ended with one request.
const MOST: usize = 1_000;

/// All strays, in the order of their names.
#[derive(Serialize, ToSchema)]
pub(crate) struct StrayList {
    pub(crate) items: Vec<Stray>,
    /// Always null: the strays are one page.
    pub(crate) next: Option<i64>,
}

/// List stray replicas
///
/// Replicas that run where a worker of this database works and belong to another database, or to what this one was before it
/// was restored from an older copy. They get no requests and are left alone.
#[utoipa::path(
    get, path = "/v1/strays", tag = "strays", operation_id = "listStrays",
    responses(
        (status = 200, description = "All strays", body = StrayList),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(app): State<Shared>, query: Query) -> Result<JsonAnswer<StrayList>, Error> {
    query.finish()?;
    Ok(JsonAnswer(StrayList { items: app.store.stray_list().await?, next: None }))
}

/// End stray replicas
///
/// They drain and end at the next look of their worker (`worker.scan_interval_ms`). This cannot be undone.
#[utoipa::path(
    post, path = "/v1/strays/end", tag = "strays", operation_id = "endStrays",
    request_body = EndStrays,
    responses(
        (status = 202, description = "They will be ended", body = StrayList),
        (status = 404, description = "One of them is not known; none is ended", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other refusal", body = Problem, content_type = "application/problem+json"),
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
