//! `/v1/modelDeployment`

use api::{Deployment, DeploymentSpec, Problem, State as DeploymentState};
use axum::{
    Json as JsonAnswer,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, ETAG, LOCATION},
};
use serde::Deserialize;
use store::{DeploymentFilter, DeploymentRecord};
use utoipa::ToSchema;

use super::{
    Shared,
    body::{Json, MergePatch},
    headers::{IdempotencyKey, IfMatch},
    list::{DEFAULT_LIMIT, DeploymentList, MAX_LIMIT, RevisionList},
    query::Query,
    segments::Id,
};
use crate::{
    app::{
        App,
        deployment::{read_rollback, read_scale},
        precondition::Tag,
    },
    error::Error,
};

/// The number of replicas.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Scale {
    /// 0 keeps the endpoint and runs nothing.
    #[schema(minimum = 0, maximum = 1000, example = 3)]
    #[allow(dead_code, reason = "documents the body, which is read by `read_scale`")]
    pub(crate) replicas: u32,
}

/// The revision to roll back to.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Rollback {
    /// The number of a kept revision: see the revisions of the deployment.
    #[schema(minimum = 1, example = 1)]
    #[allow(dead_code, reason = "documents the body, which is read by `read_rollback`")]
    pub(crate) revision: u32,
}

/// The response for one deployment, with its ETag.
async fn answer(app: &App, status: StatusCode, record: DeploymentRecord) -> Result<Response, Error> {
    let tag = HeaderValue::from_str(&Tag(record.generation).to_string());
    let mut response = (status, JsonAnswer(app.deployment_view(record).await)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(tag) = tag {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

/// Create a deployment
///
/// Returns at once with status `pending`; a worker starts the replicas. Poll the deployment until its status is
/// `active`, then send predictions to its `url`.
#[utoipa::path(
    post, path = "/v1/modelDeployment", tag = "deployments", operation_id = "createDeployment",
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeated request with the same key and payload, within a day, returns the deployment that the first request created")),
    request_body = DeploymentSpec,
    responses(
        (status = 201, description = "Created", body = Deployment, headers(
            ("Location" = String, description = "The deployment's path"),
            ("ETag" = String, description = "The generation of the specification, for If-Match"))),
        (status = 410, description = "The deployment that was created with this Idempotency-Key was deleted", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The payload has faults; all of them are listed, each with its JSON pointer", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(app): State<Shared>,
    IdempotencyKey(key): IdempotencyKey,
    query: Query,
    Json(body): Json,
) -> Result<Response, Error> {
    query.finish()?;
    let spec = DeploymentSpec::from_json(body).map_err(Error::Payload)?;
    let record = app.deployment_create(&spec, key).await?;
    let location = HeaderValue::from_str(&format!("/v1/modelDeployment/{}", record.id.0));
    let mut response = answer(&app, StatusCode::CREATED, record).await?;
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// List deployments
///
/// Sorted by id, in pages. A deployment must match all given filters.
#[utoipa::path(
    get, path = "/v1/modelDeployment", tag = "deployments", operation_id = "listDeployments",
    params(
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page", minimum = 1, maximum = 1000, example = 100),
        ("after" = Option<i64>, Query, description = "`next` of the previous page", minimum = 0),
        ("name" = Option<String>, Query, description = "Only the deployment with this name"),
        ("status" = Option<DeploymentState>, Query, description = "Only deployments in this state"),
        ("label" = Option<Vec<String>>, Query, description = "Only deployments with this label, as `key=value`; may be repeated"),
        ("model" = Option<String>, Query, description = "Only deployments that serve this registered model"),
    ),
    responses(
        (status = 200, description = "A page", body = DeploymentList),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(app): State<Shared>, mut query: Query) -> Result<JsonAnswer<DeploymentList>, Error> {
    let limit = query.limit(DEFAULT_LIMIT, MAX_LIMIT);
    let after = query.number("after", 0, i64::MAX);
    let filter = DeploymentFilter {
        name: query.text("name"),
        state: query.choice("status", &DeploymentState::ALL),
        labels: labels(&mut query),
        model: query.text("model"),
    };
    query.finish()?;
    let page = app.deployment_list(&filter, after, limit).await?;
    Ok(JsonAnswer(DeploymentList { items: app.deployment_views(page.items).await, next: page.next }))
}

fn labels(query: &mut Query) -> Vec<(String, String)> {
    let given = query.all("label");
    let mut labels = Vec::with_capacity(given.len());
    for label in given {
        match label.split_once('=') {
            Some((key, value)) if !key.is_empty() => labels.push((key.to_owned(), value.to_owned())),
            Some(_) | None => query.fault("label", "invalid", format!("`{label}` is not a label; write key=value")),
        }
    }
    labels
}

/// Read a deployment
#[utoipa::path(
    get, path = "/v1/modelDeployment/{id}", tag = "deployments", operation_id = "readDeployment",
    params(("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26")),
    responses(
        (status = 200, description = "The deployment", body = Deployment, headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "The deployment does not exist", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(State(app): State<Shared>, Id(id): Id, query: Query) -> Result<Response, Error> {
    query.finish()?;
    let record = app.deployment_get(id).await?;
    answer(&app, StatusCode::OK, record).await
}

/// Replace a deployment's specification
///
/// Fields that the payload leaves out get their defaults. The payload may be an edited GET response: fields that only
/// the server sets are ignored, but an `id` must match the path. If the change affects what runs, a new revision starts
/// next to the old one, which serves until the new one is ready.
#[utoipa::path(
    put, path = "/v1/modelDeployment/{id}", tag = "deployments", operation_id = "replaceDeployment",
    params(
        ("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version that you edited"),
    ),
    request_body = DeploymentSpec,
    responses(
        (status = 200, description = "The changed deployment", body = Deployment, headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "The deployment does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken, or the deployment is being deleted", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The deployment has changed since: If-Match does not match", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The payload has faults", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put(
    State(app): State<Shared>,
    Id(id): Id,
    IfMatch(only_if): IfMatch,
    query: Query,
    Json(body): Json,
) -> Result<Response, Error> {
    query.finish()?;
    let record = app.deployment_put(id, &body, &only_if).await?;
    answer(&app, StatusCode::OK, record).await
}

/// Change a deployment
///
/// A JSON merge patch (RFC 7396): given fields are replaced, objects are merged, null removes a field.
#[utoipa::path(
    patch, path = "/v1/modelDeployment/{id}", tag = "deployments", operation_id = "changeDeployment",
    params(
        ("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version that you edited"),
    ),
    request_body(content((Value = "application/merge-patch+json"), (Value = "application/json")), description = "The fields to change", example = json!({"replicas": 2})),
    responses(
        (status = 200, description = "The changed deployment", body = Deployment, headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "The deployment does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken, or the deployment is being deleted", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The deployment has changed since: If-Match does not match", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The changed specification has faults", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn patch(
    State(app): State<Shared>,
    Id(id): Id,
    IfMatch(only_if): IfMatch,
    query: Query,
    MergePatch(body): MergePatch,
) -> Result<Response, Error> {
    query.finish()?;
    let record = app.deployment_patch(id, &body, &only_if).await?;
    answer(&app, StatusCode::OK, record).await
}

/// Delete a deployment
///
/// Returns at once with status `deleting`. The replicas finish their running requests, then the deployment is removed.
/// Its name is free at once. Deleting it again changes nothing.
#[utoipa::path(
    delete, path = "/v1/modelDeployment/{id}", tag = "deployments", operation_id = "deleteDeployment",
    params(
        ("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version that you want to delete"),
    ),
    responses(
        (status = 202, description = "It is being deleted", body = Deployment),
        (status = 404, description = "The deployment does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The deployment has changed since: If-Match does not match", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(app): State<Shared>,
    Id(id): Id,
    IfMatch(only_if): IfMatch,
    query: Query,
) -> Result<Response, Error> {
    query.finish()?;
    let record = app.deployment_delete(id, &only_if).await?;
    answer(&app, StatusCode::ACCEPTED, record).await
}

/// Set the number of replicas
///
/// Returns at once; a worker does the work. Creates no new revision.
#[utoipa::path(
    put, path = "/v1/modelDeployment/{id}/scale", tag = "deployments", operation_id = "scaleDeployment",
    params(
        ("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version that you edited"),
    ),
    request_body = Scale,
    responses(
        (status = 200, description = "The changed deployment", body = Deployment, headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "The deployment does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The deployment is being deleted", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The deployment has changed since: If-Match does not match", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The payload has faults", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn scale(
    State(app): State<Shared>,
    Id(id): Id,
    IfMatch(only_if): IfMatch,
    query: Query,
    Json(body): Json,
) -> Result<Response, Error> {
    query.finish()?;
    let replicas = read_scale(body).map_err(Error::Payload)?;
    let record = app.deployment_scale(id, replicas, &only_if).await?;
    answer(&app, StatusCode::OK, record).await
}

/// Roll back to an earlier revision
///
/// Restores what the revision ran: the same model, variables and resources. The name, the labels and the number of
/// replicas do not change. If replicas of the revision are still running, nothing is started. Returns at once.
#[utoipa::path(
    post, path = "/v1/modelDeployment/{id}/rollback", tag = "deployments", operation_id = "rollBackDeployment",
    params(
        ("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version that you edited"),
    ),
    request_body = Rollback,
    responses(
        (status = 200, description = "The changed deployment", body = Deployment, headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "The deployment does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The deployment is being deleted", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The deployment has changed since: If-Match does not match", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The payload has faults, or the revision does not exist", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn rollback(
    State(app): State<Shared>,
    Id(id): Id,
    IfMatch(only_if): IfMatch,
    query: Query,
    Json(body): Json,
) -> Result<Response, Error> {
    query.finish()?;
    let revision = read_rollback(body).map_err(Error::Payload)?;
    let record = app.deployment_rollback(id, revision, &only_if).await?;
    answer(&app, StatusCode::OK, record).await
}

/// Deploy the same model again
///
/// Creates a new revision with the same specification and the current files of the model. (A revision always serves the
/// files that its first replica found.) Returns at once.
#[utoipa::path(
    post, path = "/v1/modelDeployment/{id}/redeploy", tag = "deployments", operation_id = "redeployDeployment",
    params(
        ("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the version that you edited"),
    ),
    responses(
        (status = 200, description = "The changed deployment", body = Deployment, headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "The deployment does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The deployment is being deleted", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The deployment has changed since: If-Match does not match", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn redeploy(
    State(app): State<Shared>,
    Id(id): Id,
    IfMatch(only_if): IfMatch,
    query: Query,
) -> Result<Response, Error> {
    query.finish()?;
    let record = app.deployment_redeploy(id, &only_if).await?;
    answer(&app, StatusCode::OK, record).await
}

/// Read a deployment's revisions
///
/// The revisions that it ran and can roll back to, newest first: the last ten, and those that are in use.
#[utoipa::path(
    get, path = "/v1/modelDeployment/{id}/revisions", tag = "deployments", operation_id = "listDeploymentRevisions",
    params(("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26")),
    responses(
        (status = 200, description = "All revisions", body = RevisionList),
        (status = 404, description = "The deployment does not exist", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn revisions(
    State(app): State<Shared>,
    Id(id): Id,
    query: Query,
) -> Result<JsonAnswer<RevisionList>, Error> {
    query.finish()?;
    Ok(JsonAnswer(RevisionList { items: app.deployment_revisions(id).await?, next: None }))
}
