//! HTTP: which path means what. Prediction paths come first, because they are what the server is for.
//!
//! Written against hyper: one match over the path's parts, no router's tables and no layers.

mod answer;
mod body;
mod v1;
mod v2;

use std::{convert::Infallible, sync::Arc};

use api::replica::SELF_REPORT_PATH;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::{app::App, caller::Caller, grpc};

pub(crate) use answer::{Answer, Body};

/// Answers one request, of whatever protocol.
pub(crate) async fn answer(app: Arc<App>, caller: Caller, request: Request<Incoming>) -> Result<Answer, Infallible> {
    if grpc::is_grpc(&request) {
        return Ok(grpc::answer(app, caller, request).await);
    }
    Ok(dispatch(&app, caller, request).await.unwrap_or_else(answer::Refusal::into_answer))
}

async fn dispatch(app: &App, caller: Caller, request: Request<Incoming>) -> answer::Answered {
    let path = request.uri().path();
    if let Some(rest) = path.strip_prefix("/v2/models/") {
        let rest = rest.to_owned();
        return v2::model(app, caller, &rest, request).await;
    }
    if let Some(rest) = path.strip_prefix("/v1/models/") {
        let rest = rest.to_owned();
        return v1::model(app, caller, &rest, request).await;
    }
    match path {
        SELF_REPORT_PATH => {
            only(&request, &[Method::GET])?;
            answer::json(&app.reporter.report(after(&request)?).await)
        }
        "/health" | "/health/live" => {
            only(&request, &[Method::GET, Method::HEAD])?;
            answer::json(&json!({"status": "alive"}))
        }
        "/v2/health/live" => {
            only(&request, &[Method::GET, Method::HEAD])?;
            answer::json(&json!({"live": true}))
        }
        "/ready" | "/health/ready" | "/v2/health/ready" => {
            only(&request, &[Method::GET, Method::HEAD])?;
            ready(app)
        }
        "/metrics" => {
            only(&request, &[Method::GET])?;
            Ok(answer::text(base::metrics::CONTENT_TYPE, app.metrics.text()))
        }
        "/v2" | "/v2/" => {
            only(&request, &[Method::GET])?;
            answer::json(&app.metadata())
        }
        "/v1/models" => {
            only(&request, &[Method::GET])?;
            answer::json(&json!({"models": app.models.names()}))
        }
        _ => Err(unknown_path(path)),
    }
}

fn ready(app: &App) -> answer::Answered {
    if app.is_ready() {
        return answer::json(&json!({"ready": true}));
    }
    let body = json!({"ready": false, "error": app.why_not_ready()});
    Ok(answer::with_status(StatusCode::SERVICE_UNAVAILABLE, answer::json(&body)?))
}

fn after(request: &Request<Incoming>) -> Result<Option<u64>, answer::Refusal> {
    let Some(query) = request.uri().query() else { return Ok(None) };
    match query.strip_prefix("after=").map(str::parse) {
        Some(Ok(after)) => Ok(Some(after)),
        _ => Err(answer::Refusal::bad("the one parameter here is `after`, a sequence number")),
    }
}

/// Refuses all other methods.
fn only(request: &Request<Incoming>, allowed: &'static [Method]) -> Result<(), answer::Refusal> {
    if allowed.contains(request.method()) {
        return Ok(());
    }
    Err(answer::Refusal::method(request.method(), request.uri().path(), allowed))
}

fn unknown_path(path: &str) -> answer::Refusal {
    let shown: String = path.chars().take(128).collect();
    answer::Refusal::not_found(format!(
        "there is nothing at {shown}; predictions are at /v2/models/{{model}}/infer and /v1/models/{{model}}:predict"
    ))
}

/// A part of a path as it was meant.
fn decoded(part: &str) -> Result<std::borrow::Cow<'_, str>, answer::Refusal> {
    percent_encoding::percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| answer::Refusal::bad("the path is not UTF-8 after its percent signs are resolved"))
}
