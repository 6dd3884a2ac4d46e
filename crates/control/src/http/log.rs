//! `/v1/modelDeployment/{id}/logs`

use api::{Problem, ReplicaId};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};

use super::{Shared, query::Query, segments::Id};
use crate::{app::log::LogRequest, error::Error};

/// How many lines are shown where the caller does not say.
const DEFAULT_TAIL: u16 = 100;

/// The most lines that can be asked for.
const MAX_TAIL: u16 = 10_000;

const HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Read the log of a deployment's replicas
///
/// Lines of text, each with its replica's name in front unless one replica is asked for.
#[utoipa::path(
    get, path = "/v1/modelDeployment/{id}/logs", tag = "deployments", operation_id = "readDeploymentLogs",
    params(
        ("id" = String, Path, description = "Its number, or `md-` and its number", example = "26"),
        ("tail" = Option<u32>, Query, description = "How many of the last lines", minimum = 0, maximum = 10000, example = 100),
        ("follow" = Option<bool>, Query, description = "Whether to go on with the lines that come"),
        ("replica" = Option<String>, Query, description = "Only this replica's", example = "md-26-r1-0"),
    ),
    responses(
        (status = 200, description = "The lines", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such deployment or replica", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No worker answers: the logs are with them", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other refusal", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(State(app): State<Shared>, Id(id): Id, mut query: Query) -> Result<Response, Error> {
    let tail = query.number("tail", 0, i64::from(MAX_TAIL)).and_then(|tail| u16::try_from(tail).ok());
    let wanted = LogRequest {
        deployment: id,
        replica: query.text("replica").map(ReplicaId),
        tail: tail.unwrap_or(DEFAULT_TAIL),
        follow: query.flag("follow"),
    };
    query.finish()?;
    Ok((HEADERS, app.logs(&wanted).await?).into_response())
}
