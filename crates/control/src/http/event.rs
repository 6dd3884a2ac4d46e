//! Events: `/v1/events` and `/v1/modelDeployment/{id}/events`.

use api::{DeploymentId, Problem};
use axum::{Json as JsonAnswer, extract::State};
use store::Order;

use super::{
    Shared,
    list::{DEFAULT_LIMIT, EventList, MAX_LIMIT},
    query::Query,
    segments::Id,
};
use crate::error::Error;

/// Read a deployment's events
///
/// Who or what decided what about the deployment, and based on what data. The newest 1,000 events are kept, and all of
/// them for 30 days after the deployment is deleted.
#[utoipa::path(
    get, path = "/v1/modelDeployment/{id}/events", tag = "events", operation_id = "listDeploymentEvents",
    params(
        ("id" = String, Path, description = "The id of the deployment: a number, or `md-` and a number", example = "26"),
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page", minimum = 1, maximum = 1000, example = 100),
        ("order" = Option<String>, Query, description = "`asc` (default): oldest first; `desc`: newest first"),
        ("after" = Option<i64>, Query, description = "`next` of the previous page, or the id of the last known event", minimum = 0),
    ),
    responses(
        (status = 200, description = "A page", body = EventList),
        (status = 404, description = "The deployment never existed", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "Any other error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_deployment(
    State(app): State<Shared>,
    Id(id): Id,
    query: Query,
) -> Result<JsonAnswer<EventList>, Error> {
    page(&app, Some(id), query).await
}

/// Read all events
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "listEvents",
    params(
        ("deployment" = Option<String>, Query, description = "Only events of this deployment: a number, or `md-` and a number"),
        ("limit" = Option<u32>, Query, description = "Maximum number of items per page", minimum = 1, maximum = 1000, example = 100),
        ("order" = Option<String>, Query, description = "`asc` (default): oldest first; `desc`: newest first"),
        ("after" = Option<i64>, Query, description = "`next` of the previous page, or the id of the last known event", minimum = 0),
    ),
    responses(
        (status = 200, description = "A page", body = EventList),
        (status = "default", description = "An error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(State(app): State<Shared>, mut query: Query) -> Result<JsonAnswer<EventList>, Error> {
    let deployment = query.parsed("deployment");
    page(&app, deployment, query).await
}

async fn page(app: &Shared, of: Option<DeploymentId>, mut query: Query) -> Result<JsonAnswer<EventList>, Error> {
    let limit = query.limit(DEFAULT_LIMIT, MAX_LIMIT);
    let order = query.choice("order", &[("asc", Order::OldestFirst), ("desc", Order::NewestFirst)]).unwrap_or_default();
    let after = query.number("after", 0, i64::MAX);
    query.finish()?;
    let page = app.event_list(of, order, after, limit).await?;
    Ok(JsonAnswer(EventList { items: page.items, next: page.next }))
}
