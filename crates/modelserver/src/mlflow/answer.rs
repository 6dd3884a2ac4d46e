//! Answers of a model that are more than tensors.
//!
//! A usual answer consists of tensors only. Any other answer has [`Extra`] before them: the answer of V1 in MLflow's
//! form, and the columns of the request that the model does not have.

use bytes::Bytes;
use inference::{Data, Json, RequestedOutput, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{error::InferError, runtime::Signature};

/// The part before the tensors of an answer, from the worker.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Extra<'j> {
    /// The answer of V1: an object with `predictions`, or any value of the model if it is `whole`.
    #[serde(borrow, default)]
    pub(crate) v1: Option<&'j RawValue>,
    #[serde(default)]
    pub(crate) whole: bool,
    /// Columns of the request that the model does not have.
    #[serde(default)]
    pub(crate) ignored: Vec<String>,
}

impl Extra<'_> {
    /// The tensor that carries it. No output has this name.
    pub(crate) fn tensor(&self) -> Option<Tensor> {
        if self.v1.is_none() && self.ignored.is_empty() {
            return None;
        }
        let text = serde_json::to_vec(self).ok()?;
        let data = Data::Json(Json { of: None, texts: vec![text.into()] });
        Some(Tensor { name: String::new(), shape: Vec::new(), data })
    }
}

/// An answer to V1.
#[derive(Debug, PartialEq)]
pub(crate) enum V1 {
    /// The fields of an object, without its braces.
    Fields(Bytes),
    /// The whole answer.
    Whole(Bytes),
}

/// Takes the part before the tensors: the answer of V1, and the ignored columns.
pub(crate) fn taken(outputs: &mut Vec<Tensor>) -> (Option<V1>, Vec<String>) {
    let is_extra = |first: &Tensor| first.name.is_empty() && matches!(first.data, Data::Json(_));
    if !outputs.first().is_some_and(is_extra) {
        return (None, Vec::new());
    }
    let Data::Json(Json { texts, .. }) = outputs.remove(0).data else { return (None, Vec::new()) };
    let extra: Extra<'_> = texts.first().and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    let v1 = extra.v1.map(|text| text.get()).map(|text| match (extra.whole, text.len()) {
        (false, 2..) => V1::Fields(Bytes::copy_from_slice(&text.as_bytes()[1..text.len() - 1])),
        _ => V1::Whole(Bytes::copy_from_slice(text.as_bytes())),
    });
    (v1, extra.ignored)
}

/// The outputs that a request names, in the order of the request.
///
/// # Errors
/// An output that the model did not return.
pub(crate) fn chosen(mut outputs: Vec<Tensor>, wanted: &[RequestedOutput]) -> Result<Vec<Tensor>, InferError> {
    let mut chosen = Vec::with_capacity(wanted.len());
    for output in wanted {
        let Some(place) = outputs.iter().position(|made| made.name == output.name) else {
            let names: Vec<_> = outputs.iter().take(16).map(|made| format!("`{}`", made.name)).collect();
            return Err(InferError::Invalid(format!(
                "the model answered {} and no `{}`",
                names.join(", "),
                output.name
            )));
        };
        chosen.push(outputs.remove(place));
    }
    Ok(chosen)
}

/// Whether the model is known to have every named output.
pub(crate) fn knows(signature: &Signature, wanted: &[RequestedOutput]) -> bool {
    wanted.iter().all(|output| signature.outputs.iter().any(|known| known.name == output.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_tensors_is_taken_away() {
        let y = || Tensor { name: "y".into(), shape: vec![1], data: Data::Int64(vec![1]) };
        let mut plain = vec![y()];
        assert_eq!((taken(&mut plain), plain.len()), ((None, Vec::new()), 1));
        let v1: &RawValue = serde_json::from_str(r#"{"predictions":[{"a":null}]}"#).unwrap();
        let extra = Extra { v1: Some(v1), whole: false, ignored: vec!["b".to_owned()] };
        let mut outputs = vec![extra.tensor().unwrap(), y()];
        let fields = V1::Fields(Bytes::from_static(br#""predictions":[{"a":null}]"#));
        assert_eq!(taken(&mut outputs), (Some(fields), vec!["b".to_owned()]));
        assert_eq!(outputs, [y()]);
        assert!(Extra::default().tensor().is_none());
        let wanted = |name: &str| RequestedOutput { name: name.into(), parameters: Default::default() };
        assert_eq!(chosen(vec![y()], &[wanted("y")]).unwrap(), [y()]);
        let said = chosen(vec![y()], &[wanted("z")]).unwrap_err().to_string();
        assert_eq!(said, "the model answered `y` and no `z`");
    }
}
