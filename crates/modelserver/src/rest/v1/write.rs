//! Tensors into predictions.

use api::inference::{Data, Malformed, Tensor, write_nested, write_row};
use bytes::Bytes;
use serde_json::json;

use crate::error::InferError;

/// The answer's body.
pub(super) fn predictions(name: &str, version: &str, outputs: &[Tensor]) -> Result<Bytes, InferError> {
    let mut out = Vec::with_capacity(256);
    let scores = scores(outputs);
    let labels: Vec<&Tensor> =
        outputs.iter().enumerate().filter(|(place, _)| Some(*place) != scores).map(|(_, output)| output).collect();
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
    let tail = json!({"model_name": name, "model_version": version}).to_string();
    out.push(b',');
    out.extend_from_slice(&tail.as_bytes()[1..]);
    Ok(out.into())
}

/// The output that holds a classifier's probabilities: floats, beside something else, named for what they are.
fn scores(outputs: &[Tensor]) -> Option<usize> {
    let named = |output: &Tensor| {
        let name = output.name.to_ascii_lowercase();
        let is_float = matches!(output.data, Data::Fp16(_) | Data::Fp32(_) | Data::Fp64(_));
        is_float && name.contains("prob")
    };
    (outputs.len() > 1).then(|| outputs.iter().position(named)).flatten()
}

/// Several outputs: one object for each row, with a value for each output that has such a row.
fn write_rows(out: &mut Vec<u8>, outputs: &[&Tensor]) -> Result<(), Malformed> {
    // What has one row, or is a scalar, is the same for all.
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
            write_row(out, output, row)?;
        }
        out.push(b'}');
    }
    out.push(b']');
    Ok(())
}
