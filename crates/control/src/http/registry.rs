//! The model registry: `/v1/registeredModels`.

use api::{
    Problem,
    registry::{ModelVersionSpec, ModelVersionView, RegisteredModel, RegisteredModelSpec},
};
use axum::{
    Json as JsonAnswer,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::LOCATION};
use serde::Serialize;

use super::{
    Shared,
    body::Json,
    list::{DEFAULT_LIMIT, MAX_LIMIT, ModelVersionList, RegisteredModelList},
    query::Query,
    segments::Segments,
};
use crate::error::Error;

/// Names and versions need no escaping, because they are validated when they are registered.
fn created(location: &str, body: impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, JsonAnswer(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Register a model
#[utoipa::path(
    post, path = "/v1/registeredModels", tag = "models", operation_id = "createRegisteredModel",
    request_body = RegisteredModelSpec,
    responses(
        (status = 201, description = "Registered", body = RegisteredModel, headers(("Location" = String, description = "The model's path"))),
        (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The payload has faults", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(State(app): State<Shared>, query: Query, Json(body): Json) -> Result<Response, Error> {
    query.finish()?;
    let spec = RegisteredModelSpec::from_json(body).map_err(Error::Payload)?;
    let model = app.model_create(&spec).await?;
    Ok(created(&format!("/v1/registeredModels/{}", model.spec.name), &model))
}

/// List registered models
#[utoipa::path(
    get, path = "/v1/registeredModels", tag = "models", operation_id = "listRegisteredModels",
    params(
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page", minimum = 1, maximum = 1000, example = 100),
        ("after" = Option<String>, Query, description = "`next` of the previous page"),
    ),
    responses(
        (status = 200, description = "A page", body = RegisteredModelList),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(app): State<Shared>,
    mut query: Query,
) -> Result<JsonAnswer<RegisteredModelList>, Error> {
    let limit = query.limit(DEFAULT_LIMIT, MAX_LIMIT);
    let after = query.text("after");
    query.finish()?;
    let (items, next) = app.model_list(after.as_deref(), limit).await?;
    Ok(JsonAnswer(RegisteredModelList { items, next }))
}

/// Read a registered model
#[utoipa::path(
    get, path = "/v1/registeredModels/{name}", tag = "models", operation_id = "readRegisteredModel",
    params(("name" = String, Path, description = "The model's name", example = "iris")),
    responses(
        (status = 200, description = "The model", body = RegisteredModel),
        (status = 404, description = "The model does not exist", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): State<Shared>,
    Segments(name): Segments<String>,
    query: Query,
) -> Result<JsonAnswer<RegisteredModel>, Error> {
    query.finish()?;
    Ok(JsonAnswer(app.model_get(&name).await?))
}

/// Delete a registered model
///
/// The model must have no versions.
#[utoipa::path(
    delete, path = "/v1/registeredModels/{name}", tag = "models", operation_id = "deleteRegisteredModel",
    params(("name" = String, Path, description = "The model's name", example = "iris")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "The model does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has versions", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(app): State<Shared>,
    Segments(name): Segments<String>,
    query: Query,
) -> Result<StatusCode, Error> {
    query.finish()?;
    app.model_delete(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Register a version of a model
///
/// A version contains files (`uri`) or a container (`image`). It never changes.
#[utoipa::path(
    post, path = "/v1/registeredModels/{name}/versions", tag = "models", operation_id = "createModelVersion",
    params(("name" = String, Path, description = "The model's name", example = "iris")),
    request_body = ModelVersionSpec,
    responses(
        (status = 201, description = "Registered", body = ModelVersionView, headers(("Location" = String, description = "The version's path"))),
        (status = 404, description = "The model does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The version exists", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The payload has faults", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create_version(
    State(app): State<Shared>,
    Segments(name): Segments<String>,
    query: Query,
    Json(body): Json,
) -> Result<Response, Error> {
    query.finish()?;
    let spec = ModelVersionSpec::from_json(body).map_err(Error::Payload)?;
    let entry = app.model_version_create(&name, &spec).await?;
    let location = format!("/v1/registeredModels/{}/versions/{}", entry.model, entry.version);
    Ok(created(&location, ModelVersionView::from(entry)))
}

/// List the versions of a model
#[utoipa::path(
    get, path = "/v1/registeredModels/{name}/versions", tag = "models", operation_id = "listModelVersions",
    params(("name" = String, Path, description = "The model's name", example = "iris")),
    responses(
        (status = 200, description = "All versions: numeric ones in numeric order, then the others by age", body = ModelVersionList),
        (status = 404, description = "The model does not exist", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list_versions(
    State(app): State<Shared>,
    Segments(name): Segments<String>,
    query: Query,
) -> Result<JsonAnswer<ModelVersionList>, Error> {
    query.finish()?;
    let items = app.model_version_list(&name).await?.into_iter().map(ModelVersionView::from).collect();
    Ok(JsonAnswer(ModelVersionList { items, next: None }))
}

/// Read a version of a model
#[utoipa::path(
    get, path = "/v1/registeredModels/{name}/versions/{version}", tag = "models", operation_id = "readModelVersion",
    params(
        ("name" = String, Path, description = "The model's name", example = "iris"),
        ("version" = String, Path, description = "The version's name", example = "v1"),
    ),
    responses(
        (status = 200, description = "The version", body = ModelVersionView),
        (status = 404, description = "The model or version does not exist", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read_version(
    State(app): State<Shared>,
    Segments((name, version)): Segments<(String, String)>,
    query: Query,
) -> Result<JsonAnswer<ModelVersionView>, Error> {
    query.finish()?;
    Ok(JsonAnswer(app.model_version_get(&name, &version).await?.into()))
}

/// Delete a version of a model
///
/// No deployment may serve the version.
#[utoipa::path(
    delete, path = "/v1/registeredModels/{name}/versions/{version}", tag = "models", operation_id = "deleteModelVersion",
    params(
        ("name" = String, Path, description = "The model's name", example = "iris"),
        ("version" = String, Path, description = "The version's name", example = "v1"),
    ),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "The model or version does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Deployments serve it; the error lists them", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_version(
    State(app): State<Shared>,
    Segments((name, version)): Segments<(String, String)>,
    query: Query,
) -> Result<StatusCode, Error> {
    query.finish()?;
    app.model_version_delete(&name, &version).await?;
    Ok(StatusCode::NO_CONTENT)
}
