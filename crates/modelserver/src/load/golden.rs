//! Golden examples: requests with the answers that a model must give before it is ready.
//!
//! `golden.json` is next to the model. Its requests and responses are V2 JSON, so a recorded call can be used as an
//! example. Floating-point outputs may differ by `absolute + relative × |expected|`; all others must be equal. A
//! response may contain a part of the outputs; the others are not compared.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use inference::{Data, Json, Nan, Request, Response, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    Config, ServeError,
    error::InferError,
    load::{
        fetch::{fetch, only},
        open::Opener,
    },
    mlflow,
    run::{
        extras,
        tolerance::{Tolerance, compare},
        validate,
    },
    runtime::sample::Generator,
    runtime::{Call, Cancel, Last, ModelRuntime, Purpose, RuntimeError, Signature},
    settings::ModelSettings,
};

/// How many examples [`record`] generates if it gets no requests.
const MADE_UP: usize = 3;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GoldenFile {
    #[serde(default)]
    tolerance: Tolerance,
    examples: Vec<Example>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    request: Box<RawValue>,
    response: Box<RawValue>,
}

/// Runs the examples beside a model, if there are any, and gives back their inputs.
pub(crate) fn check(runtime: &mut dyn ModelRuntime, file: &Path) -> Result<Vec<Vec<Tensor>>, ServeError> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ServeError::Io { what: format!("{} cannot be read", file.display()), source }),
    };
    let invalid = |reason: String| ServeError::GoldenFile { path: file.to_owned(), reason };
    let golden: GoldenFile =
        serde_json::from_slice(&text).map_err(|e| invalid(format!("these are no golden examples: {e}")))?;
    let mut inputs = Vec::with_capacity(golden.examples.len());
    for (index, example) in golden.examples.iter().enumerate() {
        let place = index + 1;
        let request =
            decode(&raw(&example.request)).map_err(|e| invalid(format!("the request of example {place}: {e}")))?;
        let expected =
            answered(&example.response).map_err(|e| invalid(format!("the response of example {place}: {e}")))?;
        let (tried, outputs) = run(runtime, request)
            .map_err(|e| ServeError::GoldenMismatch(format!("golden example {place} gets no answer: {e}")))?;
        inputs.push(tried);
        for wanted in &expected {
            compare(wanted, &outputs, golden.tolerance)
                .map_err(|reason| ServeError::GoldenMismatch(format!("golden example {place}: {reason}")))?;
        }
    }
    Ok(inputs)
}

/// A request from a file, where an unknown field is an error.
fn decode(text: &Bytes) -> Result<Request, String> {
    let request = Request::decode(text, None).map_err(|error| error.to_string())?;
    match request.ignored.header() {
        None => Ok(request),
        Some(names) => Err(format!("it has fields that a request does not have: {names}")),
    }
}

/// The outputs of a response from a file, where values may be missing.
fn answered(text: &RawValue) -> Result<Vec<Tensor>, String> {
    if !text.get().contains("null") {
        return Ok(Response::decode(&raw(text), None).map_err(|error| error.to_string())?.outputs);
    }
    let mut answer: Value = serde_json::from_str(text.get()).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    if let Some(outputs) = answer["outputs"].as_array_mut() {
        for output in outputs {
            let texts = output["data"].as_array().map(|values| flat(values)).unwrap_or_default();
            let missing = texts.iter().any(|text| text == "null");
            if missing {
                // Parsed without its values, which are added later.
                output["shape"] = serde_json::json!([0]);
                output["data"] = serde_json::json!([]);
            }
            all.push(missing.then_some(texts));
        }
    }
    let shapes: Value = serde_json::from_str(text.get()).map_err(|error| error.to_string())?;
    let read = Response::decode(&answer.to_string().into(), None).map_err(|error| error.to_string())?;
    let with_values = read.outputs.into_iter().enumerate().map(|(place, mut output)| {
        if let Some(texts) = &all[place] {
            output.shape = serde_json::from_value(shapes["outputs"][place]["shape"].clone())
                .map_err(|error| format!("output `{}`: {error}", output.name))?;
            let texts = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
            output.data = Data::Json(Json { of: Some(output.datatype()), texts });
        }
        Ok(output)
    });
    with_values.collect()
}

/// The JSON of each value in lists within lists.
fn flat(values: &[Value]) -> Vec<String> {
    values
        .iter()
        .flat_map(|value| value.as_array().map_or_else(|| vec![value.to_string()], |below| flat(below)))
        .collect()
}

fn raw(text: &RawValue) -> Bytes {
    Bytes::copy_from_slice(text.get().as_bytes())
}

/// One run on this thread, with the checks of a client request: its inputs in the order of the model, and its outputs.
fn run(runtime: &mut dyn ModelRuntime, mut request: Request) -> Result<(Vec<Tensor>, Vec<Tensor>), InferError> {
    extras::settle(runtime.signature(), &mut request)?;
    let outputs = validate::choose_outputs(runtime.signature(), &request.outputs)?;
    let inputs = validate::order_inputs(runtime.signature(), request.inputs)?;
    let mut last = Last::default();
    let call = Call {
        inputs: &inputs,
        outputs: &outputs,
        parameters: &request.parameters,
        input_parameters: &request.input_parameters,
        cancel: &Cancel::default(),
        purpose: Purpose::Example,
    };
    runtime.infer(call, &mut last)?;
    let mut made = last.0.ok_or_else(|| RuntimeError::Failed("the model made nothing".to_owned()))?;
    mlflow::answer::taken(&mut made);
    Ok((inputs, made))
}

/// Runs the model of `config` on the requests in `inputs` (files of V2 requests in JSON), or on made-up ones if
/// there are none, and writes the examples beside the model. Answers where. Blocks for as long as that takes.
///
/// # Errors
/// A model that cannot be loaded, a request that it refuses, a file that cannot be read or written.
pub async fn record(config: &Config, inputs: &[PathBuf]) -> Result<PathBuf, ServeError> {
    let fetched = fetch(config).await?;
    let file = only(&fetched)?;
    let settings = ModelSettings::of_all(config).configured(config, &file.name);
    let mut runtime = Opener { config }.open(&file, &settings)?;
    let requests = if inputs.is_empty() {
        made_up(runtime.signature())
    } else {
        inputs.iter().map(|path| read_request(path)).collect::<Result<_, _>>()?
    };
    let mut examples = Vec::with_capacity(requests.len());
    for (index, request) in requests.into_iter().enumerate() {
        let refused = |reason: String| ServeError::GoldenFile {
            path: file.golden(),
            reason: format!("request {}: {reason}", index + 1),
        };
        let text = request.encode(false).map_err(|e| refused(e.to_string()))?;
        let (_, outputs) = run(runtime.as_mut(), request).map_err(|e| refused(e.to_string()))?;
        let response = Response { model_name: file.name.clone(), outputs, ..Response::default() };
        let answer = response.encode(Nan::Word, |_| false).map_err(|e| refused(e.to_string()))?;
        let both = (to_raw(&text.body), to_raw(&answer.body));
        if let (Some(request), Some(response)) = both {
            examples.push(Example { request, response });
        }
    }
    let golden = GoldenFile { tolerance: Tolerance::default(), examples };
    let failed = |source| ServeError::Io { what: format!("{} cannot be written", file.golden().display()), source };
    let text = serde_json::to_vec_pretty(&golden).map_err(|e| failed(e.into()))?;
    fs::write(file.golden(), text).map_err(failed)?;
    Ok(file.golden())
}

fn to_raw(text: &Bytes) -> Option<Box<RawValue>> {
    serde_json::from_slice(text).ok()
}

fn read_request(path: &Path) -> Result<Request, ServeError> {
    let text = fs::read(path)
        .map_err(|source| ServeError::Io { what: format!("{} cannot be read", path.display()), source })?;
    decode(&text.into()).map_err(|e| ServeError::GoldenFile { path: path.to_owned(), reason: e.to_string() })
}

fn made_up(signature: &Signature) -> Vec<Request> {
    let mut generator = Generator::new();
    (0..MADE_UP)
        .map(|_| Request {
            inputs: signature.inputs.iter().map(|input| generator.tensor(input)).collect(),
            ..Request::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use inference::Datatype;

    use super::*;

    fn output(data: Data) -> Tensor {
        Tensor { name: "y".into(), shape: vec![i64::try_from(data.len()).unwrap()], data }
    }

    #[test]
    fn a_difference_is_told_with_its_place_its_size_and_the_tolerance() {
        let made = [output(Data::Fp32(vec![0.5, 0.71]))];
        let tolerance = Tolerance { absolute: 1e-5, relative: 1e-4 };
        let said = compare(&output(Data::Fp32(vec![0.5, 0.7])), &made, tolerance).unwrap_err();
        assert_eq!(said, "output `y`[1] is 0.71, expected 0.7 (differs by 0.01, tolerance 8e-5)");
        assert_eq!(compare(&output(Data::Fp32(vec![0.50001, 0.71])), &made, tolerance), Ok(()));
        let said = compare(&output(Data::Fp32(vec![0.5])), &made, tolerance).unwrap_err();
        assert_eq!(said, "output `y` has the shape [2], expected [1]");
        let said = compare(&output(Data::Int64(vec![1, 2])), &made, tolerance).unwrap_err();
        assert_eq!(said, "output `y` is FP32, expected INT64");
        let made = [output(Data::Int64(vec![1, 2]))];
        let said = compare(&output(Data::Int64(vec![1, 3])), &made, tolerance).unwrap_err();
        assert_eq!(said, "output `y`[1] is 2, expected 3");
    }

    #[test]
    fn values_that_are_missing_are_read_and_compared() {
        let text = r#"{"model_name":"m","outputs":[
            {"name":"y","datatype":"FP32","shape":[2],"data":[0.5,null]},
            {"name":"z","datatype":"INT64","shape":[1],"data":[7]},
            {"name":"t","datatype":"BYTES","shape":[2],"data":["a","null"]}]}"#;
        let wanted = answered(&RawValue::from_string(text.to_owned()).unwrap()).unwrap();
        let json = |of: Option<Datatype>, texts: &[&'static str]| {
            output(Data::Json(Json {
                of,
                texts: texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect(),
            }))
        };
        let tolerance = Tolerance::default();
        let made = |second: &'static str| [json(Some(Datatype::Fp32), &["0.5000001", second])];
        assert_eq!(compare(&wanted[0], &made("null"), tolerance), Ok(()));
        assert_eq!(compare(&wanted[0], &[output(Data::Fp32(vec![0.5, f32::NAN]))], tolerance), Ok(()));
        assert_eq!(compare(&wanted[0], &made("1.0"), tolerance).unwrap_err(), "output `y`[1] is 1.0, expected null");
        let other = [json(Some(Datatype::Fp32), &["0.5", "2.5"])];
        let near = compare(&other[0], &[json(Some(Datatype::Fp32), &["0.5", "2.6"])], tolerance).unwrap_err();
        assert!(near.starts_with("output `y`[1] is 2.6, expected 2.5"), "{near}");
        assert_eq!((&wanted[1].data, wanted[2].data.len()), (&Data::Int64(vec![7]), 2));
        let text = |text: &'static str| [output(Data::Bytes(vec![Bytes::from_static(text.as_bytes())]))];
        assert!(compare(&json(None, &["not JSON"]), &text("other"), tolerance).is_err(), "texts differ");
    }
}
