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

/// Default number of lines.
const DEFAULT_TAIL: u16 = 100;

/// Maximum number of lines.
const MAX_TAIL: u16 = 10_000;

const HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Read the log of a deployment's replicas
///
/// Lines of text. Unless `replica` is given, each line begins with the name of its replica.
#[utoipa::path(
    get, path = "/v1/modelDeployment/{id}/logs", tag = "deployments", operation_id = "readDeploymentLogs",
    params(
        ("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26"),
        ("tail" = Option<u32>, Query, description = "Number of last lines", minimum = 0, maximum = 10000, example = 100),
        ("follow" = Option<bool>, Query, description = "Whether to stream new lines"),
        ("replica" = Option<String>, Query, description = "Only the log of this replica", example = "md-26-r1-0"),
    ),
    responses(
        (status = 200, description = "The lines", body = String, content_type = "text/plain"),
        (status = 404, description = "The deployment or replica does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "No worker answers; workers have the logs", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
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
