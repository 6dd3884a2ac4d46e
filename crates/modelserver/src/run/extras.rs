//! The parameters of a request's inputs: the server uses some, the model gets some, the rest is ignored.
//!
//! A Python model that asks for them gets all of them. For MLServer's clients, `content_type` describes the elements;
//! only its value `base64` adds to the datatype, and is decoded for every model. Parameters that nobody reads are
//! reported as ignored.

use inference::{Data, Ignored, Parameter, Parameters, Request, decode_base64};

use crate::{error::InferError, runtime::Signature};

const CONTENT_TYPE: &str = "content_type";
const BASE64: &str = "base64";
/// Parameters of an input that only describe its encoding.
const OF_TRANSPORT: [&str; 2] = ["binary_data_size", CONTENT_TYPE];

/// Uses the parameters of a request's inputs, and keeps those that the model reads.
///
/// # Errors
/// Elements that are declared as base64 and are not.
pub(crate) fn settle(signature: &Signature, request: &mut Request) -> Result<(), InferError> {
    if request.input_parameters.is_empty() {
        return Ok(());
    }
    let Request { inputs, input_parameters, ignored, .. } = request;
    for (place, input) in inputs.iter_mut().enumerate() {
        let Some(parameters) = input_parameters.get(&input.name) else { continue };
        if let (Data::Bytes(elements), true) = (&mut input.data, is_base64(parameters)) {
            for (element, bytes) in elements.iter_mut().enumerate() {
                *bytes = decode_base64(&bytes).map(Into::into).map_err(|error| {
                    InferError::Invalid(format!(
                        "input `{}`: its `content_type` is base64, and element {element} is not: {error}",
                        input.name
                    ))
                })?;
            }
        }
        if !signature.input_parameters {
            note(ignored, place, parameters.keys().map(String::as_str));
        }
    }
    if !signature.input_parameters {
        input_parameters.clear();
    }
    Ok(())
}

/// Records the parameters of an input that nobody reads.
pub(crate) fn note<'n>(ignored: &mut Ignored, place: usize, names: impl Iterator<Item = &'n str>) {
    let within = format!("inputs[{place}].parameters.");
    names.filter(|name| !OF_TRANSPORT.contains(name)).for_each(|name| ignored.add(&within, name));
}

fn is_base64(parameters: &Parameters) -> bool {
    matches!(parameters.get(CONTENT_TYPE), Some(Parameter::Text(text)) if text == BASE64)
}

#[cfg(test)]
mod tests {
    use inference::Tensor;

    use super::*;

    fn request(parameters: &[(&str, &str)], element: &'static str) -> Request {
        let data = Data::Bytes(vec![element.into()]);
        let parameter = |(name, value): &(&str, &str)| ((*name).to_owned(), Parameter::Text((*value).to_owned()));
        Request {
            inputs: vec![Tensor { name: "x".into(), shape: vec![1], data }],
            input_parameters: [("x".to_owned(), parameters.iter().map(parameter).collect())].into(),
            ..Request::default()
        }
    }

    #[test]
    fn what_a_model_does_not_read_is_named_unless_it_says_how_it_was_sent() {
        let mut asked = request(&[("content_type", "str"), ("unit", "cm")], "a");
        settle(&Signature::default(), &mut asked).unwrap();
        assert_eq!(asked.ignored.header().unwrap(), "inputs[0].parameters.unit");
        assert!(asked.input_parameters.is_empty());
        let reads = Signature { input_parameters: true, ..Signature::default() };
        let mut asked = request(&[("content_type", "str"), ("unit", "cm")], "a");
        settle(&reads, &mut asked).unwrap();
        assert_eq!((asked.ignored.count(), asked.input_parameters["x"].len()), (0, 2));
    }

    #[test]
    fn base64_is_decoded_or_refused() {
        let mut asked = request(&[("content_type", "base64")], "AP8=");
        settle(&Signature::default(), &mut asked).unwrap();
        assert_eq!(asked.inputs[0].data, Data::Bytes(vec![vec![0, 255].into()]));
        let said = settle(&Signature::default(), &mut request(&[("content_type", "base64")], "?")).unwrap_err();
        assert!(said.to_string().contains("element 0 is not"), "{said}");
    }
}
