//! Converts tensors to predictions.

use std::borrow::Cow;

use bytes::Bytes;
use inference::{Datatype, Malformed, Nan, Tensor, write_nested, write_row};
use serde_json::json;

use crate::{error::InferError, mlflow::answer::V1};

/// The body of an answer from the worker of a model.
pub(super) fn as_said(name: &str, version: &str, said: V1) -> Bytes {
    match said {
        V1::Whole(body) => body,
        V1::Fields(fields) => {
            let tail = json!({"model_name": name, "model_version": version}).to_string();
            [b"{", fields.as_ref(), b",", &tail.as_bytes()[1..]].concat().into()
        }
    }
}

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol::rest) enum Form {
    /// Predictions, and the scores of a classifier next to them.
    V1,
    /// An object per row, with one value of each output: a data frame of MLflow.
    Records,
    /// The outputs by name.
    Arrays,
}

/// The body of the answer.
pub(super) fn predictions(
    name: &str,
    version: &str,
    outputs: &[Tensor],
    form: Form,
    nan: Nan,
) -> Result<Bytes, InferError> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"predictions\":");
    match (form, (form == Form::Records).then(|| flattened(outputs)).flatten()) {
        (Form::Arrays, _) => {
            for (place, output) in outputs.iter().enumerate() {
                out.extend_from_slice(if place > 0 { b"," } else { b"{" });
                out.extend_from_slice(json!(output.name).to_string().as_bytes());
                out.push(b':');
                write_nested(&mut out, output, nan)?;
            }
            out.push(b'}');
        }
        (Form::Records, Some(columns)) => write_rows(&mut out, &columns.iter().collect::<Vec<_>>(), nan)?,
        // Outputs of different lengths are not a data frame.
        (Form::V1 | Form::Records, _) => write_predictions(&mut out, outputs, nan)?,
    }
    let tail = json!({"model_name": name, "model_version": version}).to_string();
    out.push(b',');
    out.extend_from_slice(&tail.as_bytes()[1..]);
    Ok(out.into())
}

/// The outputs as columns of a data frame, if they have the same length.
fn flattened(outputs: &[Tensor]) -> Option<Vec<Tensor>> {
    let length = outputs.first()?.data.len();
    let flat = |output: &Tensor| Tensor { shape: vec![i64::try_from(length).unwrap_or(0)], ..output.clone() };
    outputs.iter().all(|output| output.data.len() == length).then(|| outputs.iter().map(flat).collect())
}

fn write_predictions(out: &mut Vec<u8>, outputs: &[Tensor], nan: Nan) -> Result<(), Malformed> {
    let scores = scores(outputs);
    let labels: Vec<&Tensor> =
        outputs.iter().enumerate().filter(|(place, _)| Some(*place) != scores).map(|(_, output)| output).collect();
    match (labels.as_slice(), scores) {
        ([one], _) => write_nested(out, one, nan)?,
        ([], Some(place)) => write_nested(out, &outputs[place], nan)?,
        (several, _) => write_rows(out, several, nan)?,
    }
    if let (false, Some(place)) = (labels.is_empty(), scores) {
        out.extend_from_slice(b",\"probabilities\":");
        match labels.as_slice() {
            [labels] => write_nested(out, &by_row(labels, &outputs[place]), nan)?,
            _ => write_nested(out, &outputs[place], nan)?,
        }
    }
    Ok(())
}

/// The names of an output with the probabilities of a classifier; the second one comes from scikit-learn's converter.
const SCORES: [&str; 2] = ["probabilities", "output_probability"];

/// The output with the probabilities of a classifier: floats per class, next to another output, with one of these
/// names.
fn scores(outputs: &[Tensor]) -> Option<usize> {
    let named = |output: &Tensor| {
        let is_float = matches!(output.datatype(), Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64);
        is_float && output.shape.len() > 1 && SCORES.contains(&output.name.as_str())
    };
    (outputs.len() > 1).then(|| outputs.iter().position(named)).flatten()
}

/// The probabilities of a multi-label classifier, which come by label (`[labels, rows, classes]`), by row.
fn by_row<'t>(labels: &Tensor, scores: &'t Tensor) -> Cow<'t, Tensor> {
    let ([rows, each], [first, second, classes]) = (labels.shape.as_slice(), scores.shape.as_slice()) else {
        return Cow::Borrowed(scores);
    };
    if (rows, each) != (second, first) {
        return Cow::Borrowed(scores);
    }
    let size = |dimension: i64| usize::try_from(dimension).unwrap_or(0);
    let (rows, each, classes) = (size(*rows), size(*each), size(*classes));
    let mut data = scores.data.empty_like();
    for (row, label) in (0..rows).flat_map(|row| (0..each).map(move |label| (row, label))) {
        let from = (label * rows + row) * classes;
        if !data.append(&scores.data, from..from + classes) {
            return Cow::Borrowed(scores);
        }
    }
    Cow::Owned(Tensor { name: scores.name.clone(), shape: vec![*second, *first, scores.shape[2]], data })
}

/// Several outputs: one object per row, with a value of each output that has such a row.
fn write_rows(out: &mut Vec<u8>, outputs: &[&Tensor], nan: Nan) -> Result<(), Malformed> {
    // An output with one row, or a scalar, is the same for all rows.
    let rows = |output: &Tensor| output.shape.first().map_or(1, |rows| usize::try_from(*rows).unwrap_or(0));
    let count = outputs.iter().map(|output| rows(output)).max().unwrap_or(0);
    let names: Vec<_> = outputs.iter().map(|output| json!(output.name).to_string()).collect();
    out.push(b'[');
    for row in 0..count {
        out.extend_from_slice(if row > 0 { b",{" } else { b"{" });
        let mut first = true;
        for (output, name) in outputs.iter().zip(&names) {
            let row = match rows(output) {
                held if held == count => row,
                1 => 0,
                _ => continue,
            };
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            write_row(out, output, row, nan)?;
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use inference::Data;

    use super::*;

    fn tensor(name: &str, shape: &[i64], data: Data) -> Tensor {
        Tensor { name: name.into(), shape: shape.into(), data }
    }

    fn said(outputs: &[Tensor]) -> String {
        let body = predictions("m", "1", outputs, Form::V1, Nan::Null).unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        text.split(",\"model_name\"").next().unwrap().to_owned()
    }

    #[test]
    fn probabilities_of_several_labels_are_by_row() {
        let labels = tensor("label", &[3, 2], Data::Int64(vec![0, 1, 2, 3, 4, 5]));
        let scores: Vec<f32> = (0_u8..6).map(f32::from).collect();
        let scores = tensor("probabilities", &[2, 3, 1], Data::Fp32(scores));
        assert_eq!(
            said(&[labels, scores]),
            r#"{"predictions":[[0,1],[2,3],[4,5]],"probabilities":[[[0.0],[3.0]],[[1.0],[4.0]],[[2.0],[5.0]]]"#
        );
    }

    #[test]
    fn only_probabilities_are_called_so() {
        let label = || tensor("label", &[2], Data::Int64(vec![1, 0]));
        let distances = tensor("scores", &[2, 1], Data::Fp32(vec![0.5, 7.0]));
        assert_eq!(
            said(&[label(), distances]),
            r#"{"predictions":[{"label":1,"scores":[0.5]},{"label":0,"scores":[7.0]}]"#
        );
        for name in ["output_probability", "probabilities"] {
            let sure = tensor(name, &[2, 1], Data::Fp32(vec![0.5, 1.0]));
            assert_eq!(said(&[label(), sure]), r#"{"predictions":[1,0],"probabilities":[[0.5],[1.0]]"#);
        }
        for name in ["probability", "prob", "problem_size", "improbability", "probabilities_of_rain"] {
            let other = tensor(name, &[2, 1], Data::Fp32(vec![0.5, 1.0]));
            let wanted = format!(r#"{{"predictions":[{{"label":1,"{name}":[0.5]}},{{"label":0,"{name}":[1.0]}}]"#);
            assert_eq!(said(&[label(), other]), wanted);
        }
        let one_each = tensor("probabilities", &[2], Data::Fp32(vec![0.5, 1.0]));
        let wanted = r#"{"predictions":[{"label":1,"probabilities":0.5},{"label":0,"probabilities":1.0}]"#;
        assert_eq!(said(&[label(), one_each]), wanted, "there is one for each class, or it is something else");
    }
}
