//! HTTP routing. Prediction paths come first, because they are the most frequent.
//!
//! It uses hyper directly: one match over the parts of the path, without the tables of a router and without layers.

pub(crate) mod answer;
mod asked;
mod body;
mod cloud_event;
mod compression;
mod echo;
mod events;
mod fields;
mod generate;
mod mlflow;
mod repository;
mod statistics;
mod v1;
mod v2;

use std::{convert::Infallible, sync::Arc};

use answer::Answer;
use api::{
    path::{self, Protocol, Target},
    replica::SELF_REPORT_PATH,
};
use asked::{Asked, READ, unknown_path};
use base::{grpc::is_call, serve::Peer};
use cloud_event::Event;
use echo::Echo;
use http::{Method, Request, StatusCode, request::Parts};
use hyper::body::Incoming;
use serde_json::json;

use crate::{
    protocol::{app::App, grpc},
    run::caller::Caller,
};

/// Refuses a request of whatever protocol, which is not read further.
pub(crate) fn refuse(request: &Request<Incoming>, status: StatusCode, words: &str) -> Answer {
    let echo = Echo::of(request);
    let is_busy = status == StatusCode::SERVICE_UNAVAILABLE;
    if is_call(request) {
        return echo.onto(grpc::refuse(words, is_busy));
    }
    let refusal = answer::Refusal::new(status, words);
    echo.onto(if is_busy { refusal.later() } else { refusal }.into_answer())
}

/// Answers one request of any protocol.
pub(crate) async fn answer(app: Arc<App>, peer: Peer, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let caller = Caller(peer.number());
    let echo = Echo::of(&request);
    let grpc = is_call(&request);
    let changes = grpc && grpc::changes(request.uri().path());
    if let Err(refusal) = app.admit(request.headers(), request.uri(), changes) {
        let words = refusal.to_string();
        let refused = if grpc { grpc::not_admitted(words) } else { answer::not_admitted(refusal.status(), words) };
        return Ok(echo.onto(refused));
    }
    if grpc {
        return Ok(echo.onto(grpc::answer(app, caller, request).await));
    }
    let (head, body) = request.into_parts();
    let wanted = compression::wanted(&head.headers).filter(|_| is_compressible(head.uri.path()));
    let event = Event::of(&head);
    let answer = dispatch(Asked { app: &app, caller, head: &head, body }).await;
    let answer = answer.unwrap_or_else(answer::Refusal::into_answer);
    let answer = match event {
        Some(event) => event.onto(answer),
        None => answer,
    };
    let answer = match wanted {
        Some(encoding) if answer.status().is_success() => compression::compress(answer, encoding).await,
        Some(_) | None => answer,
    };
    Ok(echo.onto(answer::counted(&app.budget, answer)))
}

/// Whether a successful answer may be compressed: predictions and metrics. Triton's asyncio client always asks for
/// gzip, but decompresses only predictions.
fn is_compressible(path: &str) -> bool {
    match path::read(path) {
        Ok(Target::Model(model)) => match model.protocol {
            Protocol::V1 => !model.action.is_empty(),
            Protocol::V2 => matches!(model.action.as_ref(), "infer" | "generate"),
            Protocol::Repository => false,
        },
        Ok(Target::Other(path)) => matches!(path.as_ref(), "/invocations" | "/metrics"),
        Err(_) => false,
    }
}

async fn dispatch(asked: Asked<'_>) -> answer::Answered {
    let (app, head) = (asked.app, asked.head);
    let path = match path::read(head.uri.path()).map_err(|error| answer::Refusal::bad(error.to_string()))? {
        Target::Other(path) => path,
        Target::Model(model) => {
            return match model.protocol {
                Protocol::V1 => v1::model(asked, &model).await,
                Protocol::V2 => v2::model(asked, &model).await,
                Protocol::Repository => repository::model(asked, &model).await,
            };
        }
    };
    match path.as_ref() {
        "/v2/repository/index" => repository::index(asked).await,
        SELF_REPORT_PATH => {
            asked.only(READ)?;
            answer::json(&app.reporter.report(after(head)?).await)
        }
        // KServe's clients of V1 ask for the first one.
        "/" | "/health" | "/health/live" => {
            asked.only(READ)?;
            answer::json(&json!({"status": "alive"}))
        }
        "/v2/health/live" => {
            asked.only(READ)?;
            answer::json(&json!({"live": true}))
        }
        "/ready" | "/health/ready" | "/v2/health/ready" => {
            asked.only(READ)?;
            ready(app)
        }
        "/invocations" => mlflow::invocations(asked).await,
        "/ping" => {
            asked.only(READ)?;
            ready(app)
        }
        "/version" => {
            asked.only(READ)?;
            Ok(answer::text("text/plain", env!("CARGO_PKG_VERSION").to_owned()))
        }
        "/metrics" => {
            asked.only(READ)?;
            Ok(answer::text(base::metrics::CONTENT_TYPE, app.metrics.text()))
        }
        "/v2" => {
            asked.only(READ)?;
            answer::json(&app.metadata())
        }
        "/v1/models" => {
            asked.only(READ)?;
            answer::json(&json!({"models": app.models.names()}))
        }
        "*" => {
            asked.only(&[Method::OPTIONS])?;
            Ok(answer::methods())
        }
        path => Err(unknown_path(path)),
    }
}

fn ready(app: &App) -> answer::Answered {
    if app.is_ready() {
        return answer::json(&json!({"ready": true}));
    }
    let body = json!({"ready": false, "error": app.why_not_ready()});
    Ok(answer::with_status(StatusCode::SERVICE_UNAVAILABLE, answer::json(&body)?))
}

fn after(head: &Parts) -> Result<Option<u64>, answer::Refusal> {
    let Some(query) = head.uri.query() else { return Ok(None) };
    match query.strip_prefix("after=").map(str::parse) {
        Some(Ok(after)) => Ok(Some(after)),
        _ => Err(answer::Refusal::bad("the one parameter here is `after`, a sequence number")),
    }
}
