//! The Open Inference Protocol's paths below `/v2/models/`.

use api::inference::{Encoded, HEADER_LENGTH, Request};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use hyper::body::Incoming;
use serde_json::json;

use super::{
    answer::{self, Answered, Refusal},
    body, decoded, only, unknown_path,
};
use crate::{app::App, caller::Caller, error::InferError, model::Model};

/// `{model}[/versions/{version}][/{what}]`.
pub(super) async fn model(app: &App, caller: Caller, rest: &str, request: http::Request<Incoming>) -> Answered {
    let mut parts = rest.splitn(4, '/');
    let name = decoded(parts.next().unwrap_or_default())?;
    let (version, what) = match (parts.next(), parts.next(), parts.next()) {
        (Some("versions"), Some(version), what) => (Some(decoded(version)?), what.unwrap_or_default()),
        (Some("health"), Some("live"), None) => (None, "health/live"),
        (what, None, None) => (None, what.unwrap_or_default()),
        _ => return Err(unknown_path(request.uri().path())),
    };
    let version = version.as_deref();
    match what {
        "infer" => {
            only(&request, &[Method::POST])?;
            infer(app, caller, &name, version, request).await
        }
        "" => {
            only(&request, &[Method::GET])?;
            let (model, versions) = app.models.find(&name, version)?;
            answer::json(&model.metadata(&name, versions.names()))
        }
        "ready" => {
            only(&request, &[Method::GET, Method::HEAD])?;
            app.model_ready(&name, version)?;
            answer::json(&json!({"name": name, "ready": true}))
        }
        "health/live" => {
            only(&request, &[Method::GET, Method::HEAD, Method::POST])?;
            app.models.find(&name, version)?;
            answer::json(&json!({"name": name, "live": true}))
        }
        _ => Err(unknown_path(request.uri().path())),
    }
}

async fn infer(
    app: &App,
    caller: Caller,
    name: &str,
    version: Option<&str>,
    request: http::Request<Incoming>,
) -> Answered {
    let (model, _) = app.models.find(name, version)?;
    let (head, incoming) = request.into_parts();
    body::check_encoding(&head.headers)?;
    let header_length = header_length(&head.headers)?;
    let read = body::read(app, incoming).await;
    let (body, _hold) = read.inspect_err(|refusal| model.metrics.refused_as(refusal.error_type()))?;
    let request = decode(&model, &body, header_length).inspect_err(|error| model.metrics.refused(error))?;
    let binary = binary_outputs(&model, &request);
    let response = app.infer(name, &model, request, caller).await?;
    let encoded = response.encode(|output| binary.iter().any(|name| name == output));
    encode(encoded.map_err(|e| InferError::Failed(e.to_string()))?)
}

fn decode(model: &Model, body: &Bytes, header_length: Option<usize>) -> Result<Request, InferError> {
    if header_length != Some(0) {
        return Ok(Request::decode(body, header_length)?);
    }
    match model.signature.inputs.as_slice() {
        [input] => Ok(Request::from_raw(body, &input.name, input.datatype, &input.shape)?),
        inputs => Err(InferError::Invalid(format!(
            "a raw body (Inference-Header-Content-Length: 0) is one input, the model has {}: send JSON before it",
            inputs.len()
        ))),
    }
}

/// The names of the outputs that go behind the JSON.
fn binary_outputs(model: &Model, request: &Request) -> Vec<String> {
    // Most requests say nothing of the kind.
    if request.outputs.is_empty() && request.parameters.is_empty() {
        return Vec::new();
    }
    let names = model.signature.outputs.iter().map(|output| &output.name);
    names.filter(|name| request.wants_binary(name)).cloned().collect()
}

fn encode(encoded: Encoded) -> Answered {
    let Some(length) = encoded.header_length else {
        return Ok(answer::bytes("application/json", encoded.body));
    };
    let mut answer = answer::bytes("application/octet-stream", encoded.body);
    answer.headers_mut().insert(HeaderName::from_static(HEADER_LENGTH), HeaderValue::from(length));
    Ok(answer)
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.map(Some).ok_or_else(|| Refusal::bad("Inference-Header-Content-Length is not a number of bytes"))
}
