//! Requests of gateways: `/v1/routes`.

use api::{
    Fault, Problem,
    ejected::{Ejected, MOST_EJECTED},
    lost::{LostRequests, MOST_LOST},
    route::PROTOCOL,
};
use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Shared, body::Json, query::Query};
use crate::{
    error::Error,
    watch::{Cursor, Form},
};

const HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Watch the routes
///
/// For gateways. A stream of JSON objects, one per line: `hello`, then each `change` after the given version, then
/// `synced`, and so on without end. `synced` is repeated as a heartbeat. A change has a `kind` (`endpoint`, `targets`),
/// a `key`, a `version` and a `value`, which is null if the entry was removed. With protocol 1, or without `protocol`,
/// a change has a `deployment` and its whole `route`, in the format of gateways of 0.1.0.
#[utoipa::path(
    get, path = "/v1/routes/watch", tag = "routes", operation_id = "watchRoutes",
    params(
        ("protocol" = Option<i64>, Query, description = "The version of the messages; the default is 1", minimum = 1),
        ("epoch" = Option<String>, Query, description = "The epoch of the database that the caller's table came from"),
        ("after" = Option<i64>, Query, description = "The version of the caller's table", minimum = 0),
    ),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "application/x-ndjson"),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn watch(State(app): State<Shared>, mut query: Query) -> Result<Response, Error> {
    let epoch = query.text("epoch").filter(|epoch| !epoch.is_empty());
    let after = query.number("after", 0, i64::MAX).unwrap_or(0);
    let protocol = query.number("protocol", 1, i64::MAX).unwrap_or(1);
    let form = Form::of(protocol);
    if form.is_none() {
        let detail =
            format!("this control plane supports versions 1 to {PROTOCOL}; upgrade control planes before gateways");
        query.fault("protocol", "unknown_protocol", detail);
    }
    query.finish()?;
    let form = form.unwrap_or_default();
    let watcher = app.watch.join(Cursor { epoch, after, form }).await?;
    Ok((HEADERS, Body::from_stream(watcher.lines())).into_response())
}

/// Report lost requests
///
/// For gateways: requests that a replica did not answer completely. Each report becomes an event of its deployment,
/// unless it was reported before or its deployment no longer exists.
#[utoipa::path(
    post, path = "/v1/routes/lost", tag = "routes", operation_id = "tellLostRequests",
    request_body = Vec<LostRequests>,
    responses(
        (status = 204, description = "The reports are stored"),
        (status = 422, description = "The payload has faults", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn lost(State(app): State<Shared>, query: Query, Json(body): Json) -> Result<StatusCode, Error> {
    query.finish()?;
    app.requests_lost(&reports(body, MOST_LOST)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Report ejected replicas
///
/// For gateways: replicas that get no requests for a time, because they failed. Each report becomes an event of its
/// deployment, unless it was reported before or its deployment no longer exists.
#[utoipa::path(
    post, path = "/v1/routes/ejected", tag = "routes", operation_id = "tellEjectedReplicas",
    request_body = Vec<Ejected>,
    responses(
        (status = 204, description = "The reports are stored"),
        (status = 422, description = "The payload has faults", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ejected(State(app): State<Shared>, query: Query, Json(body): Json) -> Result<StatusCode, Error> {
    query.finish()?;
    app.replicas_ejected(&reports(body, MOST_EJECTED)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn reports<R: DeserializeOwned>(body: Value, most: usize) -> Result<Vec<R>, Error> {
    let fault = |code: &str, detail: String| {
        Error::Payload(vec![Fault { pointer: String::new(), code: code.to_owned(), detail }])
    };
    let reports: Vec<R> = serde_json::from_value(body).map_err(|error| fault("invalid_payload", error.to_string()))?;
    if reports.len() > most {
        return Err(fault("too_many", format!("send at most {most} reports at once")));
    }
    Ok(reports)
}
