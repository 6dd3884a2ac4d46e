//! `generate` and `generate_stream`: a flat JSON object as request and answer, as in Triton's generate extension.
//!
//! A field with the name of an input is that input, `id` is the request id, and every other field is a parameter;
//! `parameters` may contain more of both. Missing leading dimensions of a value are 1. An MLflow model without a
//! signature has no named inputs: each field except `id` and `parameters` is one. Values that tensors cannot hold
//! (null, objects) are passed to the worker of an MLflow model unchanged.

use std::collections::HashSet;

use bytes::Bytes;
use inference::{Data, Parameter, Request, Tensor, TensorMetadata, nested_data, restore_bare_floats, write_nested};
use serde_json::{json, value::RawValue};

use super::{fields::Fields, v1::json_rows};
use crate::{
    error::InferError,
    mlflow::{
        document::{self, Door},
        table::is_table,
    },
    run::model::Model,
    runtime::Signature,
};

/// The request in a body.
pub(super) fn read(signature: &Signature, body: &[u8]) -> Result<Request, InferError> {
    Fields::of_body(body, "the model's inputs", |fields| {
        let read = of_fields(signature, fields);
        if !document::takes(signature) {
            return read;
        }
        let is_known = !signature.inputs.is_empty() && !signature.plain;
        match read {
            Ok(request) if is_known && !document::holds_json(signature, &request.inputs) => Ok(request),
            _ => as_it_came(signature, fields),
        }
    })
}

/// A request that the worker of an MLflow model reads.
fn as_it_came(signature: &Signature, fields: &Fields<'_>) -> Result<Request, InferError> {
    let (mut inputs, mut parameters, mut request_id) = (Vec::new(), Vec::new(), None);
    let input = |name: &str| signature.inputs.iter().find(|input| input.name == name);
    let mut sort = |name: &str, value: &RawValue, is_nested: bool| {
        let text = restore_bare_floats(value.get());
        match input(name) {
            Some(input) => inputs.push((name.to_owned(), with_rows(signature, input, &text))),
            None if signature.inputs.is_empty() && !is_nested => inputs.push((name.to_owned(), text.into_owned())),
            None => parameters.push((name.to_owned(), text.into_owned())),
        }
    };
    for (name, value) in &fields.0 {
        match name.as_ref() {
            "id" if input("id").is_none() => request_id = Some(id(value)?),
            "parameters" if input("parameters").is_none() => {
                nested(value)?.0.iter().for_each(|(name, value)| sort(name, value, true));
            }
            name => sort(name, value, false),
        }
    }
    let mut seen = HashSet::new();
    if let Some((twice, _)) = inputs.iter().chain(&parameters).find(|(name, _)| !seen.insert(name.as_str())) {
        let shown: String = twice.chars().take(64).collect();
        return Err(InferError::Invalid(format!("`{shown}` occurs twice")));
    }
    let inputs = match inputs.as_slice() {
        [] => {
            let names: Vec<_> = signature.inputs.iter().map(|input| format!("`{}`", input.name)).collect();
            return Err(InferError::Invalid(format!("the body has none of the model's inputs: {}", names.join(", "))));
        }
        // The worker checks its plain values itself.
        [(_, only)] if signature.plain => only.clone(),
        several => object(several),
    };
    let parameters = object(&parameters);
    let body = format!("{{\"inputs\":{inputs},\"parameters\":{parameters}}}");
    let raw = serde_json::from_str::<&RawValue>(&parameters).ok();
    Ok(Request { id: request_id, ..document::request(Door::Generate, body.into(), raw) })
}

/// The JSON of an input with its missing leading dimensions. A column of a table has a value or its rows.
fn with_rows(signature: &Signature, input: &TensorMetadata, text: &str) -> String {
    if is_table(signature) && !signature.plain {
        return text.to_owned();
    }
    let depth = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).take_while(|byte| *byte == b'[').count();
    let missing = input.shape.len().saturating_sub(depth);
    format!("{}{text}{}", "[".repeat(missing), "]".repeat(missing))
}

fn object(fields: &[(String, String)]) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", fields.join(","))
}

fn nested(value: &RawValue) -> Result<Fields<'_>, InferError> {
    serde_json::from_str(value.get()).map_err(|e| InferError::Invalid(format!("`parameters`: {e}")))
}

fn of_fields(signature: &Signature, fields: &Fields<'_>) -> Result<Request, InferError> {
    let mut request = Request::default();
    for (name, value) in &fields.0 {
        let is_input = signature.inputs.iter().chain(&signature.defaults).any(|input| input.name == *name);
        match name.as_ref() {
            "id" if !is_input => request.id = Some(id(value)?),
            "parameters" if !is_input => {
                for (name, value) in &nested(value)?.0 {
                    assign(signature, &mut request, name, value)?;
                }
            }
            name => assign(signature, &mut request, name, value)?,
        }
    }
    Ok(request)
}

fn id(value: &RawValue) -> Result<String, InferError> {
    match serde_json::from_str(value.get()) {
        Ok(Parameter::Text(text)) => Ok(text),
        Ok(Parameter::Int(_) | Parameter::Uint(_)) => Ok(value.get().to_owned()),
        Ok(Parameter::Bool(_) | Parameter::Float(_)) | Err(_) => {
            Err(InferError::Invalid("`id` is not a string or a whole number".to_owned()))
        }
    }
}

/// Assigns a field to its place.
fn assign(signature: &Signature, request: &mut Request, name: &str, value: &RawValue) -> Result<(), InferError> {
    let shown = || name.chars().take(64).collect::<String>();
    let known = signature.inputs.iter().chain(&signature.defaults).enumerate();
    if let Some((place, input)) = known.into_iter().find(|(_, input)| input.name == name) {
        if value.get() == "null" && signature.optional.contains(&place) && !document::takes(signature) {
            return Ok(());
        }
        if signature.json.contains(&place) {
            // The rows of a list are its values; anything else, and every value for a stream, is one value.
            let is_rows = value.get().starts_with('[') && input.shape == [-1];
            let rows = if is_rows { value.get().to_owned() } else { format!("[{}]", value.get()) };
            request.inputs.push(json_rows(input, &rows, &shown())?);
            return Ok(());
        }
        let (mut shape, data) =
            nested_data(value.get(), input.datatype).map_err(|e| InferError::Invalid(format!("`{}`: {e}", shown())))?;
        while shape.len() < input.shape.len() {
            shape.insert(0, 1);
        }
        request.inputs.push(Tensor { name: name.to_owned(), shape, data });
        return Ok(());
    }
    let parameter = serde_json::from_str(value.get()).map_err(|_| {
        let inputs: Vec<_> = signature.inputs.iter().map(|input| format!("`{}`", input.name)).collect();
        InferError::Invalid(format!(
            "`{}` is none of the model's inputs ({}), and a parameter is a string, a number or a boolean",
            shown(),
            inputs.join(", ")
        ))
    })?;
    if request.parameters.insert(name.to_owned(), parameter).is_some() {
        return Err(InferError::Invalid(format!("`{}` occurs twice", shown())));
    }
    Ok(())
}

/// The object with the outputs: a single value if there is one, otherwise a flat list.
pub(super) fn write(name: &str, model: &Model, id: Option<&String>, outputs: Vec<Tensor>) -> Result<Bytes, InferError> {
    let mut head = json!({"model_name": name, "model_version": model.version});
    if let Some(id) = id {
        head["id"] = json!(id);
    }
    let mut out = head.to_string().into_bytes();
    out.pop();
    for mut output in outputs {
        out.extend_from_slice(format!(",{}:", json!(output.name)).as_bytes());
        output.shape = if output.data.len() == 1 { Vec::new() } else { vec![count(&output.data)] };
        write_nested(&mut out, &output, model.signature.nan())
            .map_err(|e| InferError::Invalid(format!("output `{}`: {e}", output.name)))?;
    }
    out.push(b'}');
    Ok(out.into())
}

fn count(data: &Data) -> i64 {
    i64::try_from(data.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_is_said_in_both_places_is_refused() {
        let input = TensorMetadata {
            name: "x".to_owned(),
            datatype: inference::Datatype::Fp32,
            shape: vec![-1],
            labels: Vec::new(),
        };
        // With null in it the body goes to the worker of an MLflow model as it came.
        for (platform, value) in [("python", "1"), (crate::runtime::MLFLOW, "null")] {
            let signature = Signature { platform, inputs: vec![input.clone()], ..Signature::default() };
            let body = |more: &str| format!("{{\"x\":{value},\"n\":1{more}}}");
            assert!(read(&signature, body("").as_bytes()).is_ok(), "{platform}");
            for twice in [r#","parameters":{"n":2}"#, r#","n":2"#] {
                let said = read(&signature, body(twice).as_bytes()).unwrap_err().to_string();
                assert!(said.contains("`n` occurs twice"), "{platform}: {said}");
            }
        }
    }
}
