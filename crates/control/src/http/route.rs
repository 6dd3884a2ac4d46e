//! `/v1/routes/watch`

use api::Problem;
use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};

use super::{Shared, query::Query};
use crate::{error::Error, watch::Cursor};

const HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Watch the routes
///
/// For gateways. A stream of JSON objects, one a line: `hello`, then each `change` after the given version, then
/// `synced`, and so on for as long as both live. `synced` is repeated as a sign of life.
#[utoipa::path(
    get, path = "/v1/routes/watch", tag = "routes", operation_id = "watchRoutes",
    params(
        ("epoch" = Option<String>, Query, description = "Names the database that the caller's table came from"),
        ("after" = Option<i64>, Query, description = "The version of the caller's table", minimum = 0),
    ),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "application/x-ndjson"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn watch(State(app): State<Shared>, mut query: Query) -> Result<Response, Error> {
    let epoch = query.text("epoch").filter(|epoch| !epoch.is_empty());
    let after = query.number("after", 0, i64::MAX).unwrap_or(0);
    query.finish()?;
    let watcher = app.watch.join(Cursor { epoch, after }).await?;
    Ok((HEADERS, Body::from_stream(watcher.lines())).into_response())
}
