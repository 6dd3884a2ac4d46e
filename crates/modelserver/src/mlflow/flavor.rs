//! Selects the flavour of a model to serve.

use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::description::Description;

/// The flavour that every Python model has in addition to its own.
const PYFUNC: &str = "python_function";

/// The runtime of a model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Runner {
    /// ONNX Runtime in this process, with this file.
    Onnx(PathBuf),
    /// A Python worker.
    Python(Python),
}

/// How a worker loads a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Python {
    /// `sklearn`, `xgboost`, `lightgbm`, `catboost` or `pytorch`; `pyfunc` for everything that only MLflow can load.
    loader: &'static str,
    /// The file or folder of the model, relative to the model's folder.
    file: Option<String>,
    /// The flavour's section of `MLmodel`.
    options: Value,
    /// The method that predicts.
    predict_fn: String,
    /// The folder with the model's own modules.
    code: Option<String>,
}

/// A flavour that the worker loads without MLflow: its name, the corresponding module of MLflow, and where `MLmodel`
/// contains the name of its file.
const NATIVE: [(&str, &str, &str); 5] = [
    ("sklearn", "mlflow.sklearn", "pickled_model"),
    ("xgboost", "mlflow.xgboost", "data"),
    ("lightgbm", "mlflow.lightgbm", "data"),
    ("catboost", "mlflow.catboost", "data"),
    ("pytorch", "mlflow.pytorch", "model_data"),
];

impl Runner {
    /// What runs the model in `folder`.
    pub(crate) fn of(description: &Description, folder: &Path) -> Result<Self, String> {
        if let Some(file) = description.word("onnx", "data") {
            return Ok(Self::Onnx(folder.join(there(folder, file)?)));
        }
        let module = description.word(PYFUNC, "loader_module");
        let native = NATIVE.iter().find(|(name, loader, _)| {
            // A model that was logged with its own loader needs that loader.
            description.flavors.contains_key(*name) && module.is_none_or(|module| module == *loader)
        });
        let code = description.word(PYFUNC, "code").map(str::to_owned);
        let predict_fn = description.word(PYFUNC, "predict_fn").unwrap_or("predict").to_owned();
        if let Some((loader, _, key)) = native {
            let file = description.word(loader, key).or_else(|| description.word(PYFUNC, "model_path"));
            let file =
                file.ok_or_else(|| format!("its flavour {loader} does not say which file the model is (`{key}`)"))?;
            let file = Some(there(folder, file)?.to_owned());
            let options = description.flavors.get(*loader).cloned().unwrap_or_default();
            return Ok(Self::Python(Python { loader, file, options, predict_fn, code }));
        }
        if let Some(options) = description.flavors.get(PYFUNC) {
            return Ok(Self::Python(Python {
                loader: "pyfunc",
                file: None,
                options: options.clone(),
                predict_fn,
                code,
            }));
        }
        let names: Vec<_> = description.flavors.keys().map(String::as_str).take(8).collect();
        Err(if names.is_empty() {
            "it names no flavour; log the model again with MLflow".to_owned()
        } else {
            format!(
                "its flavours are {}, of which none can be served; log it with `python_function` too",
                names.join(", ")
            )
        })
    }
}

impl Runner {
    /// A word for it, for the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Onnx(_) => "onnx",
            Self::Python(python) => python.loader,
        }
    }
}

impl Python {
    /// Whether it is loaded without MLflow.
    pub(crate) fn is_native(&self) -> bool {
        self.loader != "pyfunc"
    }

    /// The package that reads the model's file, where that is not the model's own library.
    pub(crate) fn reader(&self) -> Option<&'static str> {
        match self.options.get("serialization_format").and_then(Value::as_str) {
            Some("skops") => Some("skops"),
            Some("cloudpickle") => Some("cloudpickle"),
            _ => None,
        }
    }
}

/// An existing file of the model.
fn there<'f>(folder: &Path, file: &'f str) -> Result<&'f str, String> {
    let below = Path::new(file).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !below {
        return Err(format!("it names {file}, which leaves its folder"));
    }
    if !folder.join(file).exists() {
        return Err(format!("it names {file}, which is not there: the model was not copied whole"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flavors: &str) -> Result<Runner, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m"), b"").unwrap();
        Runner::of(&Description::parse(&format!("flavors:\n{flavors}")).unwrap(), folder.path())
    }

    fn loader(flavors: &str) -> &'static str {
        of(flavors).unwrap().name()
    }

    #[test]
    fn what_can_be_loaded_without_mlflow_is() {
        let function = "  python_function: {loader_module: mlflow.sklearn, model_path: m}\n";
        assert_eq!(loader(&format!("{function}  sklearn: {{pickled_model: m}}\n")), "sklearn");
        let function = "  python_function: {loader_module: mlflow.onnx, data: m}\n";
        assert_eq!(loader(&format!("{function}  onnx: {{data: m}}\n")), "onnx");
        assert_eq!(loader("  xgboost: {data: m}\n"), "xgboost");
    }

    #[test]
    fn a_loader_of_its_own_is_the_one_that_its_owner_wants() {
        let function = "  python_function: {loader_module: mine, data: m}\n";
        assert_eq!(loader(&format!("{function}  sklearn: {{pickled_model: m}}\n")), "pyfunc");
        assert_eq!(loader("  python_function: {loader_module: mlflow.pyfunc.model, python_model: m}\n"), "pyfunc");
    }

    #[test]
    fn flavours_that_cannot_be_served_are_named() {
        assert!(of("  spark: {model_data: m}\n").unwrap_err().contains("its flavours are spark"));
    }
}
