//! The V1 protocol: `instances` (or columnar `inputs`) in, `predictions` out.
//!
//! It is translated to the tensors of V2 and back. A classifier's scores, where the model has them, come as
//! `probabilities` beside the predicted labels.

use std::collections::BTreeMap;

use api::{
    decode::nearest,
    inference::{Data, Malformed, Request, Tensor, TensorMetadata, nested_data, write_nested},
};
use bytes::Bytes;
use http::Method;
use hyper::body::Incoming;
use serde_json::{json, value::RawValue};

use super::{
    answer::{self, Answered},
    body, decoded, only, unknown_path,
};
use crate::{app::App, caller::Caller, error::InferError, model::Model, runtime::Signature};

/// `{model}` or `{model}:predict`.
pub(super) async fn model(app: &App, caller: Caller, rest: &str, request: http::Request<Incoming>) -> Answered {
    let rest = decoded(rest)?;
    match rest.rsplit_once(':') {
        Some((name, "predict")) => {
            only(&request, &[Method::POST])?;
            predict(app, caller, name, request).await
        }
        _ if rest.contains('/') => Err(unknown_path(request.uri().path())),
        _ => {
            only(&request, &[Method::GET])?;
            let (model, _) = app.models.find(&rest, None)?;
            let platform = model.signature.platform;
            answer::json(
                &json!({"name": rest, "version": model.version, "platform": platform, "ready": app.is_ready()}),
            )
        }
    }
}

async fn predict(app: &App, caller: Caller, name: &str, request: http::Request<Incoming>) -> Answered {
    let (model, _) = app.models.find(name, None)?;
    let (head, incoming) = request.into_parts();
    body::check_encoding(&head.headers)?;
    let read = body::read(app, incoming).await;
    let (body, _hold) = read.inspect_err(|refusal| model.metrics.refused_as(refusal.error_type()))?;
    let inputs = tensors(&model.signature, &body).inspect_err(|error| model.metrics.refused(error))?;
    let response = app.infer(name, &model, Request { inputs, ..Request::default() }, caller).await?;
    let body = write(name, &model, &response.outputs).map_err(|e| InferError::Failed(e.to_string()))?;
    Ok(answer::bytes("application/json", body.into()))
}

/// The tensors of a body.
fn tensors(signature: &Signature, body: &Bytes) -> Result<Vec<Tensor>, InferError> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body)
        .map_err(|e| InferError::Invalid(format!("the body is not a JSON object with `instances`: {e}")))?;
    const KNOWN: [&str; 3] = ["instances", "inputs", "signature_name"];
    if let Some(unknown) = fields.keys().find(|field| !KNOWN.contains(&field.as_str())) {
        let hint = nearest(unknown, KNOWN).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(InferError::Invalid(format!("`{unknown}` is not a field of the body{hint}")));
    }
    match (fields.get("instances"), fields.get("inputs")) {
        (Some(instances), None) => rows(signature, instances),
        (None, Some(inputs)) => columns(signature, inputs),
        (Some(_), Some(_)) => Err(InferError::Invalid("the body has both `instances` and `inputs`".to_owned())),
        (None, None) => {
            Err(InferError::Invalid("`instances` is missing: {\"instances\": [[1, 2], [3, 4]]}".to_owned()))
        }
    }
}

/// A list of instances: bare values for the one input, or objects with one value for each input.
fn rows(signature: &Signature, instances: &RawValue) -> Result<Vec<Tensor>, InferError> {
    let expected = || InferError::Invalid("Expected \"instances\" to be a list".to_owned());
    if !instances.get().starts_with('[') {
        return Err(expected());
    }
    let objects = instances.get()[1..].trim_start().starts_with('{');
    match signature.inputs.as_slice() {
        [input] if !objects => Ok(vec![tensor(input, instances.get(), "instances")?]),
        inputs if !objects => Err(InferError::Invalid(format!(
            "the model has {} inputs, so that each instance is an object with a value for each: {}",
            inputs.len(),
            inputs.iter().map(|input| format!("`{}`", input.name)).collect::<Vec<_>>().join(", ")
        ))),
        inputs => {
            let rows: Vec<BTreeMap<&str, &RawValue>> =
                serde_json::from_str(instances.get()).map_err(|e| InferError::Invalid(format!("`instances`: {e}")))?;
            for (place, row) in rows.iter().enumerate() {
                known_inputs(inputs, row.keys().copied(), &format!("instances[{place}]"))?;
            }
            inputs
                .iter()
                .map(|input| {
                    let values: Vec<_> =
                        rows.iter().filter_map(|row| row.get(input.name.as_str())).map(|v| v.get()).collect();
                    if values.len() < rows.len() {
                        return Err(InferError::Invalid(format!(
                            "`{}` is missing in some of the instances",
                            input.name
                        )));
                    }
                    tensor(input, &format!("[{}]", values.join(",")), &input.name)
                })
                .collect()
        }
    }
}

/// Whole columns: an object with a list for each input, or the bare list for the one input.
fn columns(signature: &Signature, given: &RawValue) -> Result<Vec<Tensor>, InferError> {
    if !given.get().starts_with('{') {
        return match signature.inputs.as_slice() {
            [input] => Ok(vec![tensor(input, given.get(), "inputs")?]),
            _ => Err(InferError::Invalid("`inputs` is an object with a list for each input of the model".to_owned())),
        };
    }
    let columns: BTreeMap<&str, &RawValue> =
        serde_json::from_str(given.get()).map_err(|e| InferError::Invalid(format!("`inputs`: {e}")))?;
    known_inputs(&signature.inputs, columns.keys().copied(), "`inputs`")?;
    let given = signature.inputs.iter().filter_map(|input| Some((input, columns.get(input.name.as_str())?)));
    given.map(|(input, column)| tensor(input, column.get(), &input.name)).collect()
}

fn known_inputs<'n>(
    inputs: &[TensorMetadata],
    mut given: impl Iterator<Item = &'n str>,
    place: &str,
) -> Result<(), InferError> {
    let unknown = given.find(|name| inputs.iter().all(|input| input.name != *name));
    match unknown {
        None => Ok(()),
        Some(name) => {
            let near = nearest(name, inputs.iter().map(|input| input.name.as_str()));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            Err(InferError::Invalid(format!("{place}: the model has no input `{name}`{hint}")))
        }
    }
}

/// Reads lists into the tensor that an input wants. Dimensions of 1 at its end, which people leave out of
/// columns, are added.
fn tensor(input: &TensorMetadata, lists: &str, place: &str) -> Result<Tensor, InferError> {
    let (mut shape, data) =
        nested_data(lists, input.datatype).map_err(|e| InferError::Invalid(format!("`{place}`: {e}")))?;
    let missing = input.shape.get(shape.len()..).unwrap_or_default();
    if missing.iter().all(|dimension| matches!(dimension, -1 | 1)) {
        shape.resize(shape.len() + missing.len(), 1);
    }
    Ok(Tensor { name: input.name.clone(), shape, data })
}

fn write(name: &str, model: &Model, outputs: &[Tensor]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(256);
    let scores = scores(outputs);
    let labels: Vec<&Tensor> =
        outputs.iter().enumerate().filter(|(place, _)| Some(*place) != scores).map(|(_, t)| t).collect();
    out.extend_from_slice(b"{\"predictions\":");
    match (labels.as_slice(), scores) {
        ([one], _) => write_nested(&mut out, one)?,
        ([], Some(place)) => write_nested(&mut out, &outputs[place])?,
        (several, _) => write_rows(&mut out, several)?,
    }
    if let (false, Some(place)) = (labels.is_empty(), scores) {
        out.extend_from_slice(b",\"probabilities\":");
        write_nested(&mut out, &outputs[place])?;
    }
    let tail = json!({"model_name": name, "model_version": model.version}).to_string();
    out.push(b',');
    out.extend_from_slice(&tail.as_bytes()[1..]);
    Ok(out)
}

/// The output that holds a classifier's scores: floats, beside something else, named for what they are.
fn scores(outputs: &[Tensor]) -> Option<usize> {
    let named = |output: &Tensor| {
        let name = output.name.to_ascii_lowercase();
        let is_float = matches!(output.data, Data::Fp16(_) | Data::Fp32(_) | Data::Fp64(_));
        is_float && (name.contains("prob") || name.contains("score"))
    };
    (outputs.len() > 1).then(|| outputs.iter().position(named)).flatten()
}

/// Several outputs: one object for each row, with a value for each output.
fn write_rows(out: &mut Vec<u8>, outputs: &[&Tensor]) -> Result<(), Malformed> {
    let mut columns = Vec::with_capacity(outputs.len());
    for output in outputs {
        let mut text = Vec::new();
        write_nested(&mut text, output)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        // A scalar output is the same for every row.
        let rows: Vec<Box<RawValue>> = serde_json::from_str(&text)
            .or_else(|_| RawValue::from_string(text).map(|value| vec![value]))
            .map_err(|e| Malformed(e.to_string()))?;
        columns.push((&output.name, rows));
    }
    let count = columns.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
    let at = |rows: &[Box<RawValue>], row: usize| {
        if rows.len() == count { Some(row) } else { (rows.len() == 1).then_some(0) }
    };
    let row = |row: usize| -> BTreeMap<&String, &RawValue> {
        columns.iter().filter_map(|(name, rows)| Some((*name, &*rows[at(rows, row)?]))).collect()
    };
    let rows: Vec<_> = (0..count).map(row).collect();
    serde_json::to_writer(out, &rows).map_err(|e| Malformed(e.to_string()))
}
