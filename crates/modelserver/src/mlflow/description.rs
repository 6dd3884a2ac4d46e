//! The file `MLmodel`, as MLflow writes it.

use std::{fs::File, io::Read as _, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

/// Its name.
pub(crate) const FILE: &str = "MLmodel";
/// The longest that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The parts of the file that matter here. MLflow adds fields in each release, so unknown ones are ignored.
#[derive(Debug, Default)]
pub(crate) struct Description {
    /// What each flavour needs to load the model.
    pub(crate) flavors: Map<String, Value>,
    /// The inputs, as JSON in JSON.
    pub(crate) inputs: Option<Value>,
    /// The outputs.
    pub(crate) outputs: Option<Value>,
    /// The parameters of a request.
    pub(crate) params: Option<Value>,
    /// The file with an example in the form of a request.
    pub(crate) example: Option<String>,
    /// The MLflow that wrote it.
    pub(crate) mlflow_version: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    flavors: Map<String, Value>,
    signature: Option<Texts>,
    saved_input_example_info: Option<Example>,
    mlflow_version: Option<String>,
}

#[derive(Deserialize)]
struct Texts {
    inputs: Option<String>,
    outputs: Option<String>,
    params: Option<String>,
}

#[derive(Deserialize)]
struct Example {
    serving_input_path: Option<String>,
}

impl Description {
    /// Reads it in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let mut text = String::new();
        let file = File::open(folder.join(FILE)).map_err(|error| error.to_string())?;
        let read = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
        if read as u64 > MAX_BYTES {
            return Err(format!("it has over {} MiB, which no MLmodel has", MAX_BYTES >> 20));
        }
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let written: Written =
            serde_yaml_ng::from_str(text).map_err(|error| format!("it is not YAML of MLflow's: {error}"))?;
        let Written { flavors, signature, saved_input_example_info, mlflow_version } = written;
        let list = |what: &str, text: Option<String>| match text {
            Some(text) => serde_json::from_str::<Value>(&text)
                .map(|value| (!value.is_null()).then_some(value))
                .map_err(|error| format!("its signature's {what} are not JSON: {error}")),
            None => Ok(None),
        };
        let (inputs, outputs, params) =
            signature.map_or((None, None, None), |texts| (texts.inputs, texts.outputs, texts.params));
        Ok(Self {
            flavors,
            inputs: list("inputs", inputs)?,
            outputs: list("outputs", outputs)?,
            params: list("params", params)?,
            example: saved_input_example_info.and_then(|example| example.serving_input_path),
            mlflow_version,
        })
    }

    /// A word of a flavour's.
    pub(crate) fn word(&self, flavor: &str, key: &str) -> Option<&str> {
        self.flavors.get(flavor)?.get(key)?.as_str()
    }
}
