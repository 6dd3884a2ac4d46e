//! The V2 protocol over HTTP: metadata and readiness of models, prediction in JSON and binary, with one answer or a
//! stream of answers.

use std::sync::Arc;

use api::path::ModelPath;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use inference::{Encoded, HEADER_LENGTH, Ignored, Nan, Request, Response, Tensor};
use serde_json::{json, value::RawValue};

use super::{
    answer::{self, Answered, Refusal},
    asked::{Asked, POST, READ, unknown_path},
    body,
    events::events,
    fields::Fields,
    generate, statistics,
};
use crate::{
    error::InferError,
    mlflow::document,
    protocol::budget::Hold,
    run::{extras, model::Model},
};

/// All requests for one model.
pub(super) async fn model(asked: Asked<'_>, path: &ModelPath<'_>) -> Answered {
    let (app, name, version) = (asked.app, path.name.as_ref(), path.version.as_deref());
    match path.action.as_ref() {
        "infer" => infer(asked, name, version).await,
        "infer_stream" => infer_stream(asked, name, version).await,
        "generate" => generate(asked, name, version).await,
        "generate_stream" => generate_stream(asked, name, version).await,
        // Triton's path for the statistics of all models, which reserves this name.
        "" if name == "stats" && version.is_none() => {
            asked.only(READ)?;
            statistics::all(app)
        }
        "" => {
            asked.only(READ)?;
            let (model, versions) = app.models.described(name, version)?;
            answer::json(&model.metadata(name, versions.names()))
        }
        "config" => {
            asked.only(READ)?;
            answer::json(&app.model_config(name, version)?)
        }
        "stats" => {
            asked.only(READ)?;
            statistics::one(name, &app.models.described(name, version)?.0)
        }
        "ready" => {
            asked.only(READ)?;
            app.model_ready(name, version)?;
            answer::json(&json!({"name": name, "ready": true}))
        }
        "health/live" => {
            asked.only(&[Method::GET, Method::HEAD, Method::POST])?;
            app.models.find(name, version)?;
            answer::json(&json!({"name": name, "live": true}))
        }
        _ => Err(unknown_path(asked.head.uri.path())),
    }
}

/// Reads a body for a model; errors count for the model.
async fn read<T>(
    asked: Asked<'_>,
    model: &Model,
    decode: impl FnOnce(&Bytes) -> Result<T, InferError>,
) -> Result<(T, Hold), Refusal> {
    let (body, hold) = body::read_for(asked.app, &model.metrics, &asked.head.headers, asked.body).await?;
    let request = decode(&body).inspect_err(|error| model.metrics.refused(error))?;
    Ok((request, hold))
}

async fn infer(asked: Asked<'_>, name: &str, version: Option<&str>) -> Answered {
    asked.only(POST)?;
    let (app, caller) = (asked.app, asked.caller);
    let (model, _) = app.models.find(name, version)?;
    let header_length = header_length(&asked.head.headers)?;
    let (mut request, _hold) = read(asked, &model, |body| decode(&model, body, header_length)).await?;
    let ignored = std::mem::take(&mut request.ignored);
    let mut binary = binary_outputs(&model, &request);
    // The outputs of an MLflow model are known only after it has answered.
    let wishes = (document::takes(&model.signature) && !says_nothing(&request)).then(|| Request {
        outputs: request.outputs.clone(),
        parameters: request.parameters.clone(),
        ..Request::default()
    });
    let response = app.infer(name, &model, request, caller).await;
    let answered = response.map_err(Refusal::from).and_then(|response| {
        if let Some(wishes) = wishes {
            let names = response.outputs.iter().map(|output| &output.name);
            binary = names.filter(|name| wishes.wants_binary(name)).cloned().collect();
        }
        encode(&response, &binary, model.signature.nan())
    });
    answer::naming(&ignored, &model.metrics, answered)
}

/// V2 responses as events; they are JSON, because an event is text.
async fn infer_stream(asked: Asked<'_>, name: &str, version: Option<&str>) -> Answered {
    asked.only(POST)?;
    let (app, caller) = (asked.app, asked.caller);
    let (model, _) = app.models.find(name, version)?;
    let header_length = header_length(&asked.head.headers)?;
    let (mut request, hold) = read(asked, &model, |body| decode(&model, body, header_length)).await?;
    if !binary_outputs(&model, &request).is_empty() && header_length != Some(0) {
        return Err(Refusal::bad("a stream of events is text: leave out `binary_data` and `binary_data_output`"));
    }
    request.parameters.remove("binary_data_output");
    let ignored = std::mem::take(&mut request.ignored);
    let (name, id, metrics) = (name.to_owned(), request.id.clone(), Arc::clone(&model.metrics));
    let answered = match model.stream(request, caller).await {
        Ok(answers) => {
            let write = move |outputs: Vec<Tensor>| {
                Ok(encoded(&response(&name, &model, id.clone(), outputs), &[], model.signature.nan())?.body)
            };
            events(answers, &app.budget, hold, write).await
        }
        Err(error) => Err(error.into()),
    };
    answer::naming(&ignored, &metrics, answered)
}

async fn generate(asked: Asked<'_>, name: &str, version: Option<&str>) -> Answered {
    asked.only(POST)?;
    let caller = asked.caller;
    let (model, _) = asked.app.models.find(name, version)?;
    let (request, _hold) = read(asked, &model, |body| generate::read(&model.signature, body)).await?;
    let id = request.id.clone();
    if !model.signature.streams {
        let outputs = model.infer(request, caller).await?;
        return Ok(answer::bytes("application/json", generate::write(name, &model, id.as_ref(), outputs)?));
    }
    let mut answers = model.stream(request, caller).await?;
    let Some(first) = answers.next().await.transpose()? else {
        return Err(InferError::Failed("the model made no answer".to_owned()).into());
    };
    if answers.next().await.transpose()?.is_some() {
        answers.end();
        return Err(Refusal::bad("the model makes more than one answer to this: ask for generate_stream"));
    }
    Ok(answer::bytes("application/json", generate::write(name, &model, id.as_ref(), first)?))
}

async fn generate_stream(asked: Asked<'_>, name: &str, version: Option<&str>) -> Answered {
    asked.only(POST)?;
    let (app, caller) = (asked.app, asked.caller);
    let (model, _) = app.models.find(name, version)?;
    let (request, hold) = read(asked, &model, |body| generate::read(&model.signature, body)).await?;
    let (name, id) = (name.to_owned(), request.id.clone());
    let answers = model.stream(request, caller).await?;
    events(answers, &app.budget, hold, move |outputs| generate::write(&name, &model, id.as_ref(), outputs)).await
}

fn response(name: &str, model: &Model, id: Option<String>, outputs: Vec<Tensor>) -> Response {
    Response {
        model_name: name.to_owned(),
        model_version: Some(model.version.clone()),
        id,
        parameters: Default::default(),
        outputs,
    }
}

fn decode(model: &Model, body: &Bytes, header_length: Option<usize>) -> Result<Request, InferError> {
    if header_length != Some(0) {
        let mut request = match Request::decode(body, header_length) {
            Err(error) if header_length.is_none() && document::takes(&model.signature) => {
                as_it_came(body).unwrap_or_else(|| Err(error.into()))?
            }
            read => read?,
        };
        extras::settle(&model.signature, &mut request)?;
        return Ok(request);
    }
    match model.signature.inputs.as_slice() {
        [input] => Ok(Request::from_raw(body, &input.name, input.datatype, &input.shape)?),
        inputs => Err(InferError::Invalid(format!(
            "a raw body (Inference-Header-Content-Length: 0) is one input, the model has {}: send JSON before it",
            inputs.len()
        ))),
    }
}

/// A body that is passed to the worker of an MLflow model unchanged: its tensors may contain null. `None`: it is not a
/// V2 request.
fn as_it_came(body: &Bytes) -> Option<Result<Request, InferError>> {
    let read = Fields::of_body(body, "`inputs`", |fields| {
        let is_list = fields.get("inputs").is_some_and(|inputs| inputs.get().starts_with('['));
        let others: Vec<_> = fields.0.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        Ok(is_list.then(|| {
            let mut request = document::of_v2(body, &others)?;
            fields.get("inputs").into_iter().for_each(|inputs| ignored_of(inputs, &mut request.ignored));
            Ok(request)
        }))
    });
    read.ok().flatten()
}

/// Records the fields of tensors that the worker does not read.
fn ignored_of(inputs: &RawValue, ignored: &mut Ignored) {
    const KNOWN: [&str; 5] = ["name", "shape", "datatype", "data", "parameters"];
    let inputs: Vec<Fields<'_>> = serde_json::from_str(inputs.get()).unwrap_or_default();
    for (place, input) in inputs.iter().enumerate() {
        let within = format!("inputs[{place}].");
        input.names().filter(|name| !KNOWN.contains(name)).for_each(|name| ignored.add(&within, name));
        let parameters = input.get("parameters").map(|given| serde_json::from_str::<Fields<'_>>(given.get()));
        if let Some(Ok(parameters)) = parameters {
            extras::note(ignored, place, parameters.names());
        }
    }
}

/// The names of the outputs after the JSON.
fn binary_outputs(model: &Model, request: &Request) -> Vec<String> {
    if says_nothing(request) {
        return Vec::new();
    }
    let names = model.signature.outputs.iter().map(|output| &output.name);
    names.filter(|name| request.wants_binary(name)).cloned().collect()
}

/// Whether a request does not specify the form of outputs, as most.
fn says_nothing(request: &Request) -> bool {
    request.outputs.is_empty() && request.parameters.is_empty()
}

/// The client asked for JSON, but an output needs the binary form: the client can ask for that.
fn encoded(response: &Response, binary: &[String], nan: Nan) -> Result<Encoded, InferError> {
    Ok(response.encode(nan, |output| binary.iter().any(|name| name == output))?)
}

fn encode(response: &Response, binary: &[String], nan: Nan) -> Answered {
    let encoded = encoded(response, binary, nan)?;
    let Some(length) = encoded.header_length else {
        return Ok(answer::bytes("application/json", encoded.body));
    };
    let mut answer = answer::bytes("application/octet-stream", encoded.body);
    answer.headers_mut().insert(HeaderName::from_static(HEADER_LENGTH), HeaderValue::from(length));
    Ok(answer)
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    if headers.get_all(HEADER_LENGTH).iter().any(|other| other != value) {
        return Err(Refusal::bad("Inference-Header-Content-Length is sent twice, with two lengths").closing());
    }
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.map(Some).ok_or_else(|| Refusal::bad("Inference-Header-Content-Length is not a number of bytes"))
}
