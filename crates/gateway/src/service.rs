//! One request: who answers it.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    answer::{REQUEST_ID, Refusal, json, request_id},
    app::App,
    body::OutBody,
    conn::Conn,
    grpc, metrics,
    path::{self, Own, Target},
    proxy::{self, Asked},
};

/// The most names that `GET /v1/models` lists.
const LISTED: usize = 10_000;

/// Answers one request.
pub(crate) async fn handle(conn: Arc<Conn>, request: Request<Incoming>) -> Result<Response<OutBody>, Infallible> {
    let started = Instant::now();
    let busy = conn.begin();
    let app = &conn.shard.app;
    let id = request_id(request.headers(), app);
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    if let Err(refusal) = base::guard::check(request.headers(), authority, &app.config.allowed_hosts) {
        app.counters.refused(metrics::Reason::Host);
        let refusal = Refusal::new(refusal.status(), refusal.to_string()).closing();
        return Ok(with_id(refusal.into_response(), id));
    }
    if grpc::is_grpc(&request) {
        return Ok(with_id(Box::pin(grpc::answer(busy, request, started, id.clone())).await, id));
    }
    let target = match path::read(request.uri().path()) {
        Target::Model(model) => {
            let asked = Asked { started, id: id.clone(), action: model.action };
            return Ok(match proxy::find(&conn, &model, request.method()) {
                Ok((place, revision)) => {
                    let versioned = model.version.is_some();
                    match proxy::proxy(busy, place, revision, versioned, asked, request).await {
                        // The answer of a replica carries the id already.
                        Ok(response) => response,
                        Err(refusal) => with_id(refuse(&conn, refusal), id),
                    }
                }
                Err(refusal) => {
                    let refusal = leave_body(&request, refusal);
                    with_id(refuse(&conn, refusal), id)
                }
            });
        }
        Target::Own(own) => Some(own),
        Target::Unknown => None,
    };
    let response = match target {
        Some(own) => answer_own(&conn, own, request.method()).await,
        None => {
            app.counters.refused(metrics::Reason::Path);
            Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "there is nothing at this path; models are at /v2/models/{name}/infer and /v1/models/{name}:predict",
            ))
        }
    };
    let response = response.unwrap_or_else(|refusal| refuse(&conn, leave_body(&request, refusal)));
    Ok(with_id(response, id))
}

/// A body that nobody reads makes the connection useless for the next request.
fn leave_body(request: &Request<Incoming>, refusal: Refusal) -> Refusal {
    if http_body::Body::is_end_stream(request.body()) { refusal } else { refusal.closing() }
}

fn refuse(conn: &Conn, refusal: Refusal) -> Response<OutBody> {
    if refusal.close {
        conn.linger.store(true, Ordering::Relaxed);
    }
    refusal.into_response()
}

fn with_id(mut response: Response<OutBody>, id: HeaderValue) -> Response<OutBody> {
    response.headers_mut().insert(REQUEST_ID.clone(), id);
    response
}

async fn answer_own(conn: &Conn, own: Own, method: &Method) -> Result<Response<OutBody>, Refusal> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let words = "this path answers GET only";
        return Err(Refusal { allow: Some("GET, HEAD"), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, words) });
    }
    let app = &conn.shard.app;
    Ok(match own {
        Own::Live => json(StatusCode::OK, r#"{"live":true,"status":"ok"}"#),
        Own::Ready => match not_ready(app) {
            None => json(StatusCode::OK, r#"{"ready":true,"status":"ready"}"#),
            Some(words) => return Err(Refusal::unavailable(words)),
        },
        Own::Server => {
            let server = serde_json::json!({
                "name": "modelway", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"],
            });
            json(StatusCode::OK, server.to_string())
        }
        Own::Models => {
            let names = app.table.names(LISTED);
            let more = names.len() == LISTED;
            let mut list = serde_json::json!({ "models": names.iter().map(|name| &**name).collect::<Vec<_>>() });
            if more {
                list["truncated"] = true.into();
            }
            json(StatusCode::OK, list.to_string())
        }
        Own::Metrics => {
            let text = metrics::scrape(Arc::clone(app)).await;
            let mut response = json(StatusCode::OK, text);
            let kind = HeaderValue::from_static(base::metrics::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
    })
}

/// Why the gateway cannot serve yet.
pub(crate) fn not_ready(app: &App) -> Option<&'static str> {
    if app.tasks.is_stopping() {
        Some("this gateway is shutting down")
    } else if !app.table.holds() {
        Some("this gateway has no route table yet: it waits for the control plane (gateway.control_url)")
    } else {
        None
    }
}
