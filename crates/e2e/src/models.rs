//! The sample models, and broken ones made from them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

const DOUBLING: &str = r#"
from modelway import AbstractModel, Tensor

class Doubling(AbstractModel):
    def predict(self, x: Tensor["FP64", -1]) -> Tensor["FP64", -1]:
        return 2 * x
"#;

/// Model folders of one test, below its own directory.
#[derive(Debug)]
pub struct Models {
    root: PathBuf,
}

impl Models {
    /// Model folders below `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let root = root.join("models");
        fs::create_dir_all(&root).unwrap();
        Self { root }
    }

    /// A copy of the iris classifier with its golden examples: `<folder>/{model.onnx,golden.json}`.
    #[must_use]
    pub fn iris(&self, folder: &str) -> PathBuf {
        self.copy("iris", folder)
    }

    /// A copy of the digits classifier.
    #[must_use]
    pub fn digits(&self, folder: &str) -> PathBuf {
        self.copy("digits", folder)
    }

    /// A Python model that doubles numbers.
    #[must_use]
    pub fn doubling(&self, folder: &str) -> PathBuf {
        let place = self.root.join(folder);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("model.py"), DOUBLING).unwrap();
        place
    }

    /// A `model.onnx` that is none.
    #[must_use]
    pub fn broken(&self, folder: &str) -> PathBuf {
        let place = self.root.join(folder);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("model.onnx"), b"this is not an ONNX file").unwrap();
        place
    }

    /// The iris classifier with golden examples that it cannot match.
    #[must_use]
    pub fn iris_with_wrong_golden(&self, folder: &str) -> PathBuf {
        let place = self.iris(folder);
        let file = place.join("golden.json");
        let mut golden: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for output in golden["examples"][0]["response"]["outputs"].as_array_mut().unwrap() {
            if output["datatype"] == "FP32" {
                shift_first_number(&mut output["data"]);
            }
        }
        fs::write(&file, golden.to_string()).unwrap();
        place
    }

    fn copy(&self, model: &str, folder: &str) -> PathBuf {
        let source = made_models().join(model).join("1");
        let place = self.root.join(folder);
        fs::create_dir_all(&place).unwrap();
        for file in ["model.onnx", "golden.json"] {
            fs::copy(source.join(file), place.join(file))
                .unwrap_or_else(|e| panic!("{}: {e}; run `make models` first", source.join(file).display()));
        }
        place
    }
}

fn shift_first_number(data: &mut Value) {
    if data.is_array() {
        shift_first_number(&mut data[0]);
    } else {
        *data = json!(data.as_f64().unwrap() + 0.25);
    }
}

/// Where `make models` puts them.
fn made_models() -> PathBuf {
    cache().join("models")
}

/// The Python that `make setup` installs, with NumPy and scikit-learn.
#[must_use]
pub fn python() -> PathBuf {
    cache().join("venv/bin/python")
}

/// The Python with the clients of Triton and KServe.
#[must_use]
pub fn python_with_clients() -> PathBuf {
    cache().join("clients/bin/python")
}

/// The folder with what `make setup` installs.
#[must_use]
pub fn cache() -> PathBuf {
    std::env::var_os("MODELWAY_CACHE")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/modelway"), PathBuf::from)
}

/// A V2 request for two flowers: a setosa and a virginica.
#[must_use]
pub fn iris_request(input: &str) -> Value {
    json!({"inputs": [{"name": input, "shape": [2, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2, 6.7, 3.0, 5.2, 2.3]}]})
}
