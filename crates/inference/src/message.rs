//! Inference requests and responses, and their encoding.

use bytes::{Bytes, BytesMut};

use super::{
    Data, Datatype, Ignored, InputParameters, Malformed, Parameter, Parameters, Tensor,
    binary::BINARY_DATA_SIZE,
    json_fast,
    json_read::{self, ReadOutput, ReadTensor},
    json_write::{self, Nan},
};

/// An inference request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The id from the caller, which the response repeats.
    pub id: Option<String>,
    /// Parameters, such as `priority` and `timeout` (microseconds).
    pub parameters: Parameters,
    /// The inputs, in the order of the request.
    pub inputs: Vec<Tensor>,
    /// Parameters of the inputs, by name; without `binary_data_size`, which only describes the encoding.
    pub input_parameters: InputParameters,
    /// The requested outputs; all of them if empty.
    pub outputs: Vec<RequestedOutput>,
    /// Unknown fields.
    pub ignored: Ignored,
}

/// A requested output.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// Parameters, such as `binary_data`.
    pub parameters: Parameters,
}

/// An inference response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// The model, by the name in the request.
    pub model_name: String,
    /// Its version.
    pub model_version: Option<String>,
    /// The request's id.
    pub id: Option<String>,
    /// Extras.
    pub parameters: Parameters,
    /// The outputs, in the requested order.
    pub outputs: Vec<Tensor>,
}

/// An encoded body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// JSON, followed by the binary tensors, if any.
    pub body: Bytes,
    /// The length of the JSON, for the header [`super::HEADER_LENGTH`], if tensors follow it.
    pub header_length: Option<usize>,
}

impl Request {
    /// Reads a body. `header_length` is the value of [`super::HEADER_LENGTH`], if present; 0 means that the body is a
    /// bare tensor: see [`Request::from_raw`].
    ///
    /// # Errors
    /// Any fault of a V2 request: missing fields, wrong elements, wrong lengths.
    pub fn decode(body: &Bytes, header_length: Option<usize>) -> Result<Self, Malformed> {
        let (json, mut tail) = split(body, header_length)?;
        let read = match json_fast::request(json) {
            Some(read) => read,
            None => json_read::read::<ReadOutput>(json)?,
        };
        let inputs = read.inputs.ok_or_else(|| {
            Malformed(format!(
                "`inputs` is missing{}: the body is a V2 request, {{\"inputs\": [{{\"name\", \"shape\", \"datatype\", \"data\"}}]}}",
                read.ignored.hint("", "inputs")
            ))
        })?;
        let mut input_parameters = InputParameters::new();
        let mut complete = |mut input: ReadTensor| {
            let mut parameters = std::mem::take(&mut input.parameters);
            let tensor = complete(input, &parameters, "input", &mut tail)?;
            parameters.remove(BINARY_DATA_SIZE);
            if !parameters.is_empty() {
                input_parameters.insert(tensor.name.clone(), parameters);
            }
            Ok(tensor)
        };
        let inputs = inputs.into_iter().map(&mut complete).collect::<Result<Vec<_>, Malformed>>()?;
        finish(&tail)?;
        let outputs = read
            .outputs
            .unwrap_or_default()
            .into_iter()
            .map(|output| RequestedOutput { name: output.name, parameters: output.parameters })
            .collect();
        Ok(Self { id: read.id, parameters: read.parameters, inputs, input_parameters, outputs, ignored: read.ignored })
    }

    /// Creates a request from a body that is only the model's single input (`Inference-Header-Content-Length: 0`): all
    /// outputs are returned in binary form. Of the dimensions -1 in `dims`, the last one is computed from the length,
    /// the others are 1. For `BYTES` the body is one element, without a length before it.
    ///
    /// # Errors
    /// A length that does not fit any size of the variable dimension.
    pub fn from_raw(body: &Bytes, name: &str, datatype: Datatype, dims: &[i64]) -> Result<Self, Malformed> {
        let variable = dims.iter().rposition(|dimension| *dimension < 0);
        let mut shape: Vec<i64> = dims.iter().map(|dimension| (*dimension).max(1)).collect();
        let fixed = super::element_count(&shape)?;
        let data = match datatype.size() {
            None if fixed == 1 => Data::Bytes(vec![body.clone()]),
            None => {
                return Err(Malformed(format!("the raw body is one element, input `{name}` wants {fixed}: send JSON")));
            }
            Some(size) => {
                let row = fixed.saturating_mul(size);
                if let Some(place) = variable
                    && row > 0
                    && body.len().is_multiple_of(row)
                {
                    shape[place] = i64::try_from(body.len() / row).unwrap_or(i64::MAX);
                }
                Data::from_binary(datatype, &shape, body)
                    .map_err(|e| Malformed(format!("the raw body as input `{name}`: {e}")))?
            }
        };
        let parameters = Parameters::from([("binary_data_output".to_owned(), Parameter::Bool(true))]);
        let inputs = vec![Tensor { name: name.to_owned(), shape, data }];
        Ok(Self { parameters, inputs, ..Self::default() })
    }

    /// Whether an output is returned in binary form: the parameter of the output overrides that of the request.
    #[must_use]
    pub fn wants_binary(&self, output: &str) -> bool {
        let own = self.outputs.iter().find(|wanted| wanted.name == output);
        own.and_then(|wanted| wanted.parameters.get("binary_data"))
            .or_else(|| self.parameters.get("binary_data_output"))
            .and_then(Parameter::as_bool)
            .unwrap_or(false)
    }

    /// The body of this request, with its inputs in JSON or binary form.
    ///
    /// # Errors
    /// `BYTES` that are not UTF-8 in a JSON body.
    pub fn encode(&self, binary: bool) -> Result<Encoded, Malformed> {
        let mut out = Vec::with_capacity(256);
        out.push(b'{');
        if let Some(id) = &self.id {
            out.extend_from_slice(b"\"id\":");
            json_write::json(&mut out, id);
            out.push(b',');
        }
        out.extend_from_slice(b"\"inputs\":[");
        for (index, input) in self.inputs.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json_write::tensor(&mut out, input, self.input_parameters.get(&input.name), binary, Nan::Word)?;
        }
        out.push(b']');
        if !self.outputs.is_empty() {
            out.extend_from_slice(b",\"outputs\":[");
            for (index, output) in self.outputs.iter().enumerate() {
                out.extend_from_slice(if index > 0 { b",{\"name\":" } else { b"{\"name\":" });
                json_write::json(&mut out, &output.name);
                json_write::parameters(&mut out, &output.parameters);
                out.push(b'}');
            }
            out.push(b']');
        }
        json_write::parameters(&mut out, &self.parameters);
        out.push(b'}');
        Ok(join(out, self.inputs.iter().filter(|_| binary)))
    }
}

impl Response {
    /// Reads a body; see [`Request::decode`].
    ///
    /// # Errors
    /// Any fault of a V2 response.
    pub fn decode(body: &Bytes, header_length: Option<usize>) -> Result<Self, Malformed> {
        let (json, mut tail) = split(body, header_length)?;
        let read = json_read::read::<ReadTensor>(json)?;
        let outputs = read.outputs.ok_or_else(|| Malformed::new("`outputs` is missing"))?;
        let mut complete = |mut output: ReadTensor| {
            let parameters = std::mem::take(&mut output.parameters);
            complete(output, &parameters, "output", &mut tail)
        };
        let outputs = outputs.into_iter().map(&mut complete).collect::<Result<Vec<_>, _>>()?;
        finish(&tail)?;
        Ok(Self {
            model_name: read.model_name.unwrap_or_default(),
            model_version: read.model_version,
            id: read.id,
            parameters: read.parameters,
            outputs,
        })
    }

    /// The body of this response; `binary` selects the outputs after the JSON, and `nan` how the others are written.
    ///
    /// # Errors
    /// `BYTES` that are not UTF-8 in JSON.
    pub fn encode(&self, nan: Nan, binary: impl Fn(&str) -> bool) -> Result<Encoded, Malformed> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"{\"model_name\":");
        json_write::json(&mut out, &self.model_name);
        for (field, value) in [(&b",\"model_version\":"[..], &self.model_version), (b",\"id\":", &self.id)] {
            if let Some(value) = value {
                out.extend_from_slice(field);
                json_write::json(&mut out, value);
            }
        }
        json_write::parameters(&mut out, &self.parameters);
        out.extend_from_slice(b",\"outputs\":[");
        for (index, output) in self.outputs.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            json_write::tensor(&mut out, output, None, binary(&output.name), nan)?;
        }
        out.extend_from_slice(b"]}");
        Ok(join(out, self.outputs.iter().filter(|output| binary(&output.name))))
    }
}

/// The JSON of a body, and the bytes after it.
fn split(body: &Bytes, header_length: Option<usize>) -> Result<(&[u8], Bytes), Malformed> {
    match header_length {
        None => Ok((body, Bytes::new())),
        Some(length) if length <= body.len() => Ok((&body[..length], body.slice(length..))),
        Some(length) => Err(Malformed(format!(
            "Inference-Header-Content-Length is {length}, the body has only {} bytes",
            body.len()
        ))),
    }
}

fn finish(tail: &Bytes) -> Result<(), Malformed> {
    if tail.is_empty() {
        return Ok(());
    }
    Err(Malformed(format!("{} bytes are left after the last binary tensor", tail.len())))
}

/// The parameter of a tensor in memory that a client shares with Triton.
pub const SHARED_MEMORY: &str = "shared_memory_region";

/// The error for a tensor in shared memory.
#[must_use]
pub fn no_shared_memory(kind: &str, name: &str) -> Malformed {
    Malformed(format!("{kind} `{name}` is in shared memory, which is not read here: send it in the body"))
}

/// Reads the elements of a tensor, from the JSON or from the front of the bytes after it.
fn complete(read: ReadTensor, parameters: &Parameters, kind: &str, tail: &mut Bytes) -> Result<Tensor, Malformed> {
    let ReadTensor { name, shape, datatype, parameters: _, data } = read;
    let size = match parameters.get(BINARY_DATA_SIZE) {
        None => None,
        Some(size) => Some(
            size.as_u64()
                .and_then(|size| usize::try_from(size).ok())
                .ok_or_else(|| Malformed(format!("{kind} `{name}`: `binary_data_size` is a whole number of bytes")))?,
        ),
    };
    let data = match (data, size) {
        (Some(data), None) => data,
        (Some(_), Some(_)) => {
            return Err(Malformed(format!("{kind} `{name}` has both `data` and `binary_data_size`: leave one out")));
        }
        (None, None) if parameters.contains_key(SHARED_MEMORY) => return Err(no_shared_memory(kind, &name)),
        (None, None) => return Err(Malformed(format!("{kind} `{name}` has no `data`"))),
        (None, Some(size)) if size > tail.len() => {
            return Err(Malformed(format!(
                "{kind} `{name}`: `binary_data_size` is {size}, only {} bytes are left after the JSON",
                tail.len()
            )));
        }
        (None, Some(size)) => {
            let bytes = tail.split_to(size);
            Data::from_binary(datatype, &shape, &bytes).map_err(|e| Malformed(format!("{kind} `{name}`: {e}")))?
        }
    };
    Ok(Tensor { name, shape, data })
}

fn join<'t>(json: Vec<u8>, binary: impl Iterator<Item = &'t Tensor> + Clone) -> Encoded {
    if binary.clone().next().is_none() {
        return Encoded { body: json.into(), header_length: None };
    }
    let header_length = json.len();
    let mut body = BytesMut::from(Bytes::from(json));
    body.reserve(binary.clone().map(|tensor| tensor.data.binary_len()).sum());
    binary.for_each(|tensor| tensor.data.write_binary(&mut body));
    Encoded { body: body.freeze(), header_length: Some(header_length) }
}
