//! `generate` and `generate_stream`: a flat JSON object in, a flat one out, as Triton's generate extension has it.
//!
//! A field with the name of an input is that input, `id` names the request, every other field is a parameter;
//! `parameters` may hold more of both. Dimensions that a value lacks at the front are 1.

use api::inference::{Data, Parameter, Request, Tensor, nested_data, write_nested};
use bytes::Bytes;
use serde_json::{json, value::RawValue};

use super::fields::Fields;
use crate::{error::InferError, model::Model, runtime::Signature};

/// The request that a body means.
pub(super) fn read(signature: &Signature, body: &[u8]) -> Result<Request, InferError> {
    Fields::of_body(body, "the model's inputs", |fields| of_fields(signature, fields))
}

fn of_fields(signature: &Signature, fields: &Fields<'_>) -> Result<Request, InferError> {
    let mut request = Request::default();
    for (name, value) in &fields.0 {
        let is_input = signature.inputs.iter().chain(&signature.defaults).any(|input| input.name == *name);
        match name.as_ref() {
            "id" if !is_input => request.id = Some(id(value)?),
            "parameters" if !is_input => {
                let nested: Fields<'_> =
                    serde_json::from_str(value.get()).map_err(|e| InferError::Invalid(format!("`parameters`: {e}")))?;
                for (name, value) in &nested.0 {
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

/// Puts a field where it belongs.
fn assign(signature: &Signature, request: &mut Request, name: &str, value: &RawValue) -> Result<(), InferError> {
    let shown = || name.chars().take(64).collect::<String>();
    if let Some(input) = signature.inputs.iter().chain(&signature.defaults).find(|input| input.name == name) {
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

/// The object that outputs are told in: a value alone where there is one, else a flat list.
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
        write_nested(&mut out, &output).map_err(|e| InferError::Invalid(format!("output `{}`: {e}", output.name)))?;
    }
    out.push(b'}');
    Ok(out.into())
}

fn count(data: &Data) -> i64 {
    i64::try_from(data.len()).unwrap_or(i64::MAX)
}
