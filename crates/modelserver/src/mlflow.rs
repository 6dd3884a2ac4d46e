//! MLflow models: a folder with an `MLmodel` file that describes its content.
//!
//! An ONNX model runs in this process. Any other model runs in a Python worker in the model's own environment. A plan
//! tells the worker what its flavour needs to load it. For flavours that are loaded natively (`mlflow/flavor.rs`) the
//! environment does not contain MLflow, which takes seconds to import and predicts nothing. Requests are checked
//! against the logged signature.

pub(crate) mod answer;
pub(crate) mod description;
pub(crate) mod document;
pub(crate) mod flavor;
pub(crate) mod schema;
pub(crate) mod table;

use std::path::Path;

pub(crate) use flavor::Runner;

use self::{
    description::Description,
    schema::{Column, Schema},
};
use crate::{ServeError, runtime::Logged};

/// An MLflow model, read but not loaded.
#[derive(Debug)]
pub(crate) struct MlflowModel {
    /// Its runtime.
    pub(crate) runner: Runner,
    pub(crate) description: Description,
    pub(crate) schema: Schema,
}

impl MlflowModel {
    /// Reads the content of a folder.
    ///
    /// # Errors
    /// [`ServeError::Load`]: what in `MLmodel` cannot be served, and what to do.
    pub(crate) fn read(folder: &Path) -> Result<Self, ServeError> {
        let failed = |reason: String| ServeError::Load { path: folder.join(description::FILE), reason };
        let description = Description::read(folder).map_err(failed)?;
        let runner = Runner::of(&description, folder).map_err(failed)?;
        let schema = Schema::of(&description).map_err(failed)?;
        let logged_by = description.mlflow_version.as_deref();
        tracing::info!(folder = %folder.display(), logged_by, runner = runner.name(), "an MLflow model");
        Ok(Self { runner, description, schema })
    }

    /// The logged signature.
    ///
    /// # Errors
    /// See [`Self::read`].
    pub(crate) fn logged(folder: &Path) -> Result<Logged, ServeError> {
        let failed = |reason: String| ServeError::Load { path: folder.join(description::FILE), reason };
        let schema = Description::read(folder).and_then(|read| Schema::of(&read)).map_err(failed)?;
        Ok(match schema.inputs {
            None => Logged::Bare,
            Some(_) if !schema.table => Logged::Tensors,
            Some(columns) if columns.iter().all(Column::is_named) => {
                Logged::Table(columns.iter().map(Column::name).map(str::to_owned).collect())
            }
            // Columns without names are identified by their order.
            Some(_) => Logged::Table(Vec::new()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const SKOPS: &str = "\
flavors:
  python_function: {loader_module: mlflow.sklearn, model_path: model.skops, predict_fn: predict, python_version: 3.11.7}
  sklearn: {pickled_model: model.skops, serialization_format: skops, skops_trusted_types: null}
";

    #[test]
    fn what_is_not_there_or_not_readable_is_said() {
        let said = |files: &[(&str, &str)]| MlflowModel::read(folder(files).path()).unwrap_err().to_string();
        assert!(said(&[("MLmodel", "flavors: [")]).contains("MLmodel cannot be loaded: it is not YAML"));
        assert!(said(&[("MLmodel", "run_id: x\n")]).contains("it names no flavour"));
        assert!(said(&[("MLmodel", SKOPS)]).contains("model.skops, which is not there"));
        let onnx = "flavors:\n  onnx: {data: ../../model.onnx}\n";
        assert!(said(&[("MLmodel", onnx)]).contains("leaves its folder"));
    }

    #[test]
    fn a_model_that_is_loaded_natively_needs_what_reads_it() {
        let folder = folder(&[("MLmodel", SKOPS), ("model.skops", "")]);
        let model = MlflowModel::read(folder.path()).unwrap();
        let Runner::Python(python) = &model.runner else { panic!() };
        assert!(python.is_native());
        assert_eq!(python.reader(), Some("skops"));
    }
}
