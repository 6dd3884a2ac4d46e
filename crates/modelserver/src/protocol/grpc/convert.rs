//! Messages of gRPC as requests and responses of the protocol, and back.

use std::{collections::HashMap, mem::take};

use bytes::BytesMut;
use inference::{
    Data, Datatype, InputParameters, ModelMetadata, Parameter, Parameters, Request, RequestedOutput, Response,
    SHARED_MEMORY, Tensor, no_shared_memory,
};

use super::messages::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataResponse,
    ModelRepositoryParameter, infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    model_infer_response::InferOutputTensor, model_metadata_response::TensorMetadata,
    model_repository_parameter::ParameterChoice as RepositoryChoice,
};
use crate::{error::InferError, repository::LoadRequest};

pub(super) fn metadata(model: ModelMetadata) -> ModelMetadataResponse {
    let tensors = |tensors: Vec<inference::TensorMetadata>| {
        let tensor = |tensor: inference::TensorMetadata| TensorMetadata {
            name: tensor.name,
            datatype: tensor.datatype.name().to_owned(),
            shape: tensor.shape,
        };
        tensors.into_iter().map(tensor).collect()
    };
    ModelMetadataResponse {
        name: model.name,
        versions: model.versions,
        platform: model.platform,
        inputs: tensors(model.inputs),
        outputs: tensors(model.outputs),
    }
}

/// Raw contents, if there are any, are for all inputs.
pub(super) fn request(message: ModelInferRequest) -> Result<Request, InferError> {
    let raw = message.raw_input_contents;
    if !raw.is_empty() && raw.len() != message.inputs.len() {
        return Err(InferError::Invalid(format!(
            "there are {} inputs and {} raw_input_contents: send one for each input, or none",
            message.inputs.len(),
            raw.len()
        )));
    }
    let mut inputs = Vec::with_capacity(message.inputs.len());
    let mut input_parameters = InputParameters::new();
    for (place, input) in message.inputs.into_iter().enumerate() {
        let InferInputTensor { name, datatype, shape, contents, parameters: extras } = input;
        if extras.contains_key(SHARED_MEMORY) {
            return Err(InferError::Invalid(no_shared_memory("input", &name).to_string()));
        }
        if !extras.is_empty() {
            input_parameters.insert(name.clone(), parameters(extras));
        }
        let refuse = |reason: String| InferError::Invalid(format!("input `{name}`: {reason}"));
        let datatype: Datatype = datatype.parse().map_err(|e: inference::NotADatatype| refuse(e.to_string()))?;
        let data = match (raw.get(place), contents) {
            (Some(_), Some(contents)) if contents != InferTensorContents::default() => {
                return Err(refuse("it has both contents and raw_input_contents: leave one out".to_owned()));
            }
            (Some(raw), _) => Data::from_binary(datatype, &shape, raw).map_err(|e| refuse(e.to_string()))?,
            (None, Some(contents)) => typed(datatype, contents).map_err(refuse)?,
            (None, None) => Data::empty(datatype),
        };
        let tensor = Tensor { name: name.clone(), shape, data };
        tensor.check_shape().map_err(|e| refuse(e.to_string()))?;
        inputs.push(tensor);
    }
    let output = |output: super::messages::proto::model_infer_request::InferRequestedOutputTensor| RequestedOutput {
        name: output.name,
        parameters: parameters(output.parameters),
    };
    Ok(Request {
        id: Some(message.id).filter(|id| !id.is_empty()),
        parameters: parameters(message.parameters),
        inputs,
        input_parameters,
        outputs: message.outputs.into_iter().map(output).collect(),
        ..Request::default()
    })
}

fn parameters(from: HashMap<String, InferParameter>) -> Parameters {
    let value = |parameter: InferParameter| {
        Some(match parameter.parameter_choice? {
            ParameterChoice::BoolParam(value) => Parameter::Bool(value),
            ParameterChoice::Int64Param(value) => Parameter::Int(value),
            ParameterChoice::Uint64Param(value) => Parameter::Uint(value),
            ParameterChoice::DoubleParam(value) => Parameter::Float(value),
            ParameterChoice::StringParam(value) => Parameter::Text(value),
        })
    };
    from.into_iter().filter_map(|(name, parameter)| Some((name, value(parameter)?))).collect()
}

/// What a load may bring along.
pub(super) fn load_request(parameters: HashMap<String, ModelRepositoryParameter>) -> Result<LoadRequest, InferError> {
    let mut request = LoadRequest::default();
    for (name, parameter) in parameters {
        match parameter.parameter_choice {
            Some(RepositoryChoice::StringParam(text)) => request.text(&name, &text)?,
            Some(RepositoryChoice::BytesParam(bytes)) => request.bytes(&name, bytes)?,
            Some(RepositoryChoice::BoolParam(_) | RepositoryChoice::Int64Param(_)) | None => {
                return Err(InferError::Invalid(format!("parameter `{name}` of a load is text or bytes")));
            }
        }
    }
    Ok(request)
}

/// The one parameter of an unload: whether what depends on the model goes too.
pub(super) fn unload_dependents(parameters: &HashMap<String, ModelRepositoryParameter>) -> Result<bool, InferError> {
    const NAME: &str = "unload_dependents";
    if let Some(other) = parameters.keys().find(|name| *name != NAME) {
        return Err(InferError::Invalid(format!("an unload has no parameter `{other}`; it has `{NAME}`")));
    }
    match parameters.get(NAME).map(|parameter| &parameter.parameter_choice) {
        None => Ok(false),
        Some(Some(RepositoryChoice::BoolParam(value))) => Ok(*value),
        Some(_) => Err(InferError::Invalid(format!("parameter `{NAME}` is true or false"))),
    }
}

/// Elements out of the field for their type; the small integers share those of 32 bits.
fn typed(datatype: Datatype, mut contents: InferTensorContents) -> Result<Data, String> {
    fn narrow<W: Copy + std::fmt::Display, N: TryFrom<W>>(wide: &[W], datatype: Datatype) -> Result<Vec<N>, String> {
        let narrow = |(place, wide): (usize, &W)| {
            N::try_from(*wide).map_err(|_| format!("element {place} is {wide}, which {datatype} cannot hold"))
        };
        wide.iter().enumerate().map(narrow).collect()
    }
    let (field, data) = match datatype {
        Datatype::Bool => ("bool_contents", Data::Bool(take(&mut contents.bool_contents))),
        Datatype::Uint8 => ("uint_contents", Data::Uint8(narrow(&take(&mut contents.uint_contents), datatype)?)),
        Datatype::Uint16 => ("uint_contents", Data::Uint16(narrow(&take(&mut contents.uint_contents), datatype)?)),
        Datatype::Uint32 => ("uint_contents", Data::Uint32(take(&mut contents.uint_contents))),
        Datatype::Uint64 => ("uint64_contents", Data::Uint64(take(&mut contents.uint64_contents))),
        Datatype::Int8 => ("int_contents", Data::Int8(narrow(&take(&mut contents.int_contents), datatype)?)),
        Datatype::Int16 => ("int_contents", Data::Int16(narrow(&take(&mut contents.int_contents), datatype)?)),
        Datatype::Int32 => ("int_contents", Data::Int32(take(&mut contents.int_contents))),
        Datatype::Int64 => ("int64_contents", Data::Int64(take(&mut contents.int64_contents))),
        Datatype::Fp32 => ("fp32_contents", Data::Fp32(take(&mut contents.fp32_contents))),
        Datatype::Fp64 => ("fp64_contents", Data::Fp64(take(&mut contents.fp64_contents))),
        Datatype::Bytes => ("bytes_contents", Data::Bytes(take(&mut contents.bytes_contents))),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(format!("{datatype} has no typed contents in gRPC: send raw_input_contents"));
        }
    };
    match filled(&contents) {
        Some(other) => {
            Err(format!("{other} has elements, and those of {datatype} belong in {field}: leave {other} out"))
        }
        None => Ok(data),
    }
}

/// The name of a field that has elements.
fn filled(contents: &InferTensorContents) -> Option<&'static str> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let fields = [
        ("bool_contents", bool_contents.is_empty()),
        ("int_contents", int_contents.is_empty()),
        ("int64_contents", int64_contents.is_empty()),
        ("uint_contents", uint_contents.is_empty()),
        ("uint64_contents", uint64_contents.is_empty()),
        ("fp32_contents", fp32_contents.is_empty()),
        ("fp64_contents", fp64_contents.is_empty()),
        ("bytes_contents", bytes_contents.is_empty()),
    ];
    fields.into_iter().find_map(|(name, is_empty)| (!is_empty).then_some(name))
}

/// Outputs are raw if the inputs were, or if one of them has no typed form.
pub(super) fn response(response: Response, raw: bool) -> ModelInferResponse {
    let untyped = |output: &Tensor| matches!(output.data, Data::Fp16(_) | Data::Bf16(_));
    let raw = raw || response.outputs.iter().any(untyped);
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut raw_output_contents = Vec::new();
    for output in response.outputs {
        let datatype = output.data.binary_datatype().name().to_owned();
        let mut contents = None;
        if raw {
            let mut bytes = BytesMut::new();
            output.data.write_binary(&mut bytes);
            raw_output_contents.push(bytes.freeze());
        } else {
            contents = Some(to_typed(output.data));
        }
        let (name, shape) = (output.name, output.shape);
        outputs.push(InferOutputTensor { name, datatype, shape, parameters: HashMap::new(), contents });
    }
    ModelInferResponse {
        model_name: response.model_name,
        model_version: response.model_version.unwrap_or_default(),
        id: response.id.unwrap_or_default(),
        parameters: HashMap::new(),
        outputs,
        raw_output_contents,
    }
}

fn to_typed(data: Data) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match data {
        Data::Bool(data) => contents.bool_contents = data,
        Data::Uint8(data) => contents.uint_contents = data.into_iter().map(u32::from).collect(),
        Data::Uint16(data) => contents.uint_contents = data.into_iter().map(u32::from).collect(),
        Data::Uint32(data) => contents.uint_contents = data,
        Data::Uint64(data) => contents.uint64_contents = data,
        Data::Int8(data) => contents.int_contents = data.into_iter().map(i32::from).collect(),
        Data::Int16(data) => contents.int_contents = data.into_iter().map(i32::from).collect(),
        Data::Int32(data) => contents.int_contents = data,
        Data::Int64(data) => contents.int64_contents = data,
        Data::Fp32(data) => contents.fp32_contents = data,
        Data::Fp64(data) => contents.fp64_contents = data,
        Data::Bytes(data) => contents.bytes_contents = data,
        Data::Json(json) => contents.bytes_contents = json.texts,
        // Those have no typed form, and the caller sends them raw.
        Data::Fp16(_) | Data::Bf16(_) => {}
    }
    contents
}
