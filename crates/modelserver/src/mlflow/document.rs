//! Requests that are passed to the worker unchanged.
//!
//! The tensors of the protocol can hold neither null nor objects, and a model without a signature has no named inputs.
//! Such a request reaches the worker as its JSON, in place of the inputs; the worker reads it like MLflow. It is never
//! batched with another one.

use bytes::Bytes;
use inference::{Data, Json, Nan, Parameter, Parameters, Request, Tensor, parameters_for_python, write_nested};
use serde_json::{json, value::RawValue};

use crate::{
    error::InferError,
    runtime::{MLFLOW, Signature},
};

/// The protocol of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// `instances` or `inputs`; bytes are `{"b64": …}`.
    V1,
    /// The body of MLflow's scoring server; bytes are base64.
    Invocations,
    /// The same in CSV, which is one text.
    Csv,
    /// Tensors.
    V2,
    /// V1's `inputs` by name, answered as V2 is.
    Generate,
}

impl Door {
    /// The worker's name for it.
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Invocations => "invocations",
            Self::Csv => "csv",
            Self::V2 => "v2",
            Self::Generate => "generate",
        }
    }
}

/// Whether the worker of the model accepts them.
pub(crate) fn takes(signature: &Signature) -> bool {
    signature.platform == MLFLOW
}

/// Whether any of these inputs is JSON, whose values the worker must distinguish from texts.
pub(crate) fn holds_json(signature: &Signature, inputs: &[Tensor]) -> bool {
    let sent = |place: &usize| inputs.iter().any(|input| input.name == signature.inputs[*place].name);
    signature.json.iter().any(sent)
}

/// An unchanged request. `body` is a JSON object, which may contain Python's `NaN`; for CSV it is a JSON string.
pub(crate) fn of(door: Door, body: Bytes) -> Tensor {
    let data = Data::Json(Json { of: None, texts: vec![body] });
    Tensor { name: door.name().to_owned(), shape: Vec::new(), data }
}

/// The name of the protocol and the body, if these inputs are an unchanged request.
pub(crate) fn read(inputs: &[Tensor]) -> Option<(&str, &Bytes)> {
    match inputs {
        [Tensor { name, data: Data::Json(Json { texts, .. }), .. }] => Some((name, texts.first()?)),
        _ => None,
    }
}

/// The same for a body of V1 or of MLflow's server. The parameters that the server itself uses are read here.
pub(crate) fn request(door: Door, body: Bytes, parameters: Option<&RawValue>) -> Request {
    let given = parameters
        .and_then(|given| serde_json::from_str::<std::collections::BTreeMap<String, &RawValue>>(given.get()).ok());
    let scalar =
        |(name, value): (String, &RawValue)| Some((name, serde_json::from_str::<Parameter>(value.get()).ok()?));
    let parameters: Parameters = given.into_iter().flatten().filter_map(scalar).collect();
    Request { inputs: vec![of(door, body)], parameters, ..Request::default() }
}

/// A V2 body whose tensors contain null or objects; `fields` are its other fields, as an object.
///
/// # Errors
/// What is wrong with these other fields.
pub(crate) fn of_v2(body: &Bytes, fields: &[(&str, &RawValue)]) -> Result<Request, InferError> {
    let others = fields.iter().filter(|(name, _)| *name != "inputs");
    let others: String = others.map(|(name, value)| format!(",{}:{}", json!(name), value.get())).collect();
    let rest = Request::decode(&format!("{{\"inputs\":[]{others}}}").into(), None)?;
    Ok(Request { inputs: vec![of(Door::V2, body.clone())], ..rest })
}

/// Tensors for a model without named inputs.
///
/// # Errors
/// Elements that JSON cannot represent.
pub(crate) fn of_tensors(inputs: &[Tensor]) -> Result<Tensor, InferError> {
    let mut body = b"{\"inputs\":[".to_vec();
    for (place, input) in inputs.iter().enumerate() {
        input.check_shape().map_err(|error| InferError::Invalid(format!("input `{}`: {error}", input.name)))?;
        let head = json!({"name": input.name, "datatype": input.datatype(), "shape": input.shape}).to_string();
        body.extend_from_slice(if place > 0 { b"," } else { b"" });
        body.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
        body.extend_from_slice(b",\"data\":");
        write_nested(&mut body, input, Nan::Word)?;
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    Ok(of(Door::V2, body.into()))
}

/// The data for the worker.
pub(crate) fn message(door: &str, body: &[u8], parameters: &Parameters) -> Vec<u8> {
    let mut message =
        format!("{{\"door\":\"{door}\",\"parameters\":{},\"body\":", parameters_for_python(parameters)).into_bytes();
    message.extend_from_slice(body);
    message.push(b'}');
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_become_json_with_their_datatypes() {
        let tensor = |name: &str, data| Tensor { name: name.to_owned(), shape: vec![2], data };
        let texts = Data::Bytes(vec!["a".into(), "\"".into()]);
        let document = of_tensors(&[tensor("x", Data::Fp32(vec![0.5, f32::NAN])), tensor("y", texts)]).unwrap();
        let (door, body) = read(std::slice::from_ref(&document)).unwrap();
        assert_eq!(door, "v2");
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let wanted = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [0.5, "NaN"]},
            {"name": "y", "datatype": "BYTES", "shape": [2], "data": ["a", "\""]}]});
        assert_eq!(body, wanted);
        assert!(of_tensors(&[Tensor { shape: vec![3], ..tensor("x", Data::Bool(vec![true])) }]).is_err());
    }

    #[test]
    fn the_server_reads_its_own_parameters_and_the_worker_all() {
        let text = r#"{"timeout": 5, "stops": ["a"], "seed": null}"#;
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        let request = request(Door::V1, Bytes::from_static(b"{}"), Some(raw));
        assert_eq!(request.parameters, [("timeout".to_owned(), Parameter::Int(5))].into());
        let message = message("v1", b"{\"instances\":[NaN]}", &Parameters::default());
        assert_eq!(message, br#"{"door":"v1","parameters":{},"body":{"instances":[NaN]}}"#);
    }
}
