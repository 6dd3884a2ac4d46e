//! The signature of a model, as its worker reports it.

use inference::{Datatype, TensorMetadata};
use serde::Deserialize;

use crate::runtime::{MLFLOW, Signature, TrialRuns, Trials};

/// Maximum size of a worker's report about its model.
pub(super) const LARGEST: usize = 4 << 20;
/// Maximum number of dimensions of a tensor.
const MAX_RANK: usize = 32;
/// Maximum number of inputs and outputs: a position has two bytes.
const MAX_TENSORS: usize = 10_000;

/// The report of a worker about its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Introduced {
    pub(super) signature: Signature,
    pub(super) trials: Trials,
}

#[derive(Deserialize)]
struct Hello {
    platform: String,
    rows: bool,
    streams: bool,
    /// Whether it is called for each row.
    #[serde(default)]
    each_row: bool,
    /// Whether it may be run with generated rows.
    #[serde(default = "yes")]
    trials: bool,
    inputs: Vec<(String, Datatype, Vec<i64>)>,
    outputs: Vec<(String, Datatype, Vec<i64>)>,
    /// Names of inputs.
    #[serde(default)]
    optional: Vec<String>,
    /// Names of inputs.
    #[serde(default)]
    base64: Vec<String>,
    /// Names of inputs.
    #[serde(default)]
    json: Vec<String>,
    /// Whether it checks the JSON of bodies itself.
    #[serde(default)]
    plain: bool,
    /// Whether it reads the parameters of its inputs.
    #[serde(default)]
    input_parameters: bool,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, Vec<String>>,
}

fn yes() -> bool {
    true
}

/// Parses the report of a worker.
///
/// # Errors
/// What is wrong with the report.
pub(super) fn read(json: &[u8]) -> Result<Introduced, String> {
    let hello: Hello = serde_json::from_slice(json).map_err(|e| format!("its signature cannot be read: {e}"))?;
    let mut labels = hello.labels;
    let mut described = |tensors: Vec<(String, Datatype, Vec<i64>)>, what: &str| {
        // Without a signature an MLflow model may take and answer anything.
        let least = usize::from(hello.platform != MLFLOW);
        if !(least..=MAX_TENSORS).contains(&tensors.len()) {
            return Err(format!("its signature has {} {what}; it must be {least} to {MAX_TENSORS}", tensors.len()));
        }
        let mut made: Vec<TensorMetadata> = Vec::with_capacity(tensors.len());
        for (name, datatype, shape) in tensors {
            if shape.len() > MAX_RANK || shape.iter().any(|size| *size < -1) {
                return Err(format!("`{name}` has the shape {shape:?} in its signature"));
            }
            if made.iter().any(|other| other.name == name) {
                return Err(format!("`{name}` is twice among the {what} of its signature"));
            }
            let labels = labels.remove(&name).unwrap_or_default();
            made.push(TensorMetadata { name, datatype, shape, labels });
        }
        Ok(made)
    };
    let inputs = described(hello.inputs, "inputs")?;
    let outputs = described(hello.outputs, "outputs")?;
    let rows = hello.rows
        && !hello.streams
        && !inputs.is_empty()
        && !outputs.is_empty()
        && inputs.iter().chain(&outputs).all(|tensor| tensor.shape.first() == Some(&-1));
    let places = |names: &[String]| (0..inputs.len()).filter(|place| names.contains(&inputs[*place].name)).collect();
    let (optional, base64, json) = (places(&hello.optional), places(&hello.base64), places(&hello.json));
    let (platform, streams) = (platform(&hello.platform), hello.streams);
    let (plain, input_parameters) = (hello.plain, hello.input_parameters);
    let runs = if hello.trials { TrialRuns::Few } else { TrialRuns::None };
    let trials = Trials { runs, independent: rows && hello.each_row };
    let signature = Signature {
        platform,
        inputs,
        optional,
        base64,
        json,
        plain,
        input_parameters,
        outputs,
        rows,
        streams,
        ..Signature::default()
    };
    Ok(Introduced { signature, trials })
}

/// The name of the platform, stored permanently. There are few; above a limit they are all just Python.
fn platform(name: &str) -> &'static str {
    use std::sync::{Mutex, PoisonError};
    const MOST: usize = 64;
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.iter().find(|known| **known == name) {
        return known;
    }
    let sound = name.len() <= 64 && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !sound || names.len() >= MOST {
        return "python";
    }
    let kept: &'static str = name.to_owned().leak();
    names.push(kept);
    kept
}
