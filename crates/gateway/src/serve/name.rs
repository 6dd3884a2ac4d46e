//! Finds the endpoint of a request: over HTTP from its path, over gRPC from its first message.

use std::{borrow::Cow, sync::Arc};

use api::words;
use http::{Method, StatusCode, request::Parts};

use super::app::App;
use crate::{
    observe::counters::Reason,
    table::endpoint::Endpoint,
    wire::{
        path::{self, Action, Own, Target},
        refusal::Refusal,
    },
};

/// The purpose of a request.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) version: Option<String>,
    /// Its name in the record; `None` if it is not a prediction.
    pub(crate) kind: Option<&'static str>,
    /// Requests follow each other for as long as the client wants.
    pub(crate) streams: bool,
}

/// What a path refers to: a resource of an endpoint, or a page of the gateway.
pub(crate) async fn of_path(app: &Arc<App>, parts: &Parts) -> Result<Result<Named, Own>, Refusal> {
    let path = parts.uri.path();
    let model = match path::read(path) {
        Target::Model(model) => model,
        Target::Own(page) => return Ok(Err(page)),
        Target::Unreadable => return Err(Refusal::new(StatusCode::BAD_REQUEST, api::path::NotUtf8.to_string())),
        Target::Unknown(path) => return Err(nothing_at(app, &path)),
    };
    let (kind, allow) = match model.action {
        Action::Predict(kind) => (Some(kind), (parts.method != Method::POST).then_some("POST")),
        Action::Look => (None, (!matches!(parts.method, Method::GET | Method::HEAD)).then_some("GET, HEAD")),
        Action::Other => (None, None),
    };
    // It is nearly always a mistyped verb of V1.
    if matches!(model.action, Action::Look) && model.name.contains(':') && app.gateway.table.find(&model.name).is_none()
    {
        return Err(nothing_at(app, path));
    }
    if let Some(allow) = allow {
        return Err(Refusal::method(path, allow, &parts.method));
    }
    let endpoint = endpoint(app, &model.name).await?;
    let version = model.version.map(Cow::into_owned);
    Ok(Ok(Named { endpoint, version, kind, streams: false }))
}

fn nothing_at(app: &App, path: &str) -> Refusal {
    app.gateway.counters.refused(Reason::Path);
    Refusal::new(StatusCode::NOT_FOUND, words::nothing_at(path))
}

/// The endpoint with this name.
pub(crate) async fn endpoint(app: &Arc<App>, name: &str) -> Result<Arc<Endpoint>, Refusal> {
    if let Some(endpoint) = app.gateway.table.find(name) {
        if let Some(former) = endpoint.former_of(name) {
            let words = format!("its replicas do not answer to `{name}` yet; until they do, it is `{former}`");
            let refusal = Refusal::unavailable(words);
            endpoint.count_refusal(refusal.status);
            return Err(refusal);
        }
        return Ok(endpoint);
    }
    if let Some(words) = app.gateway.not_ready() {
        return Err(Refusal::unavailable(words));
    }
    app.gateway.counters.refused(Reason::Model);
    let near: Vec<_> = near(app, name).await.iter().map(|name| format!("`{name}`")).collect();
    let hint = if near.is_empty() {
        "GET /v1/models lists the models".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    Err(Refusal::new(StatusCode::NOT_FOUND, words::unknown_model(name, &hint)))
}

/// Names similar to `name`. Only one search runs at a time, so a flood of wrong names uses one thread at most.
async fn near(app: &Arc<App>, name: &str) -> Vec<String> {
    let Ok(_turn) = app.names.try_acquire() else { return Vec::new() };
    let (table, name) = (Arc::clone(&app.gateway.table), name.to_owned());
    app.gateway.tasks.spawn_blocking(move || table.near_names(&name)).await.unwrap_or_default()
}
