//! MLflow models: a folder with an `MLmodel` file that says what is in it.
//!
//! A model in ONNX is run in this process. Any other is run by a Python worker in the model's own environment.
//! What its flavour needs to load it is told to the worker in a plan; of the kinds that are loaded natively
//! (`mlflow/flavor.rs`) the environment goes without MLflow itself, which takes seconds to import and predicts
//! nothing. The signature that was logged with the model is what requests are held to.

pub(crate) mod answer;
mod description;
pub(crate) mod document;
mod flavor;
mod schema;
pub(crate) mod table;

use std::{io::Write as _, path::Path, sync::Arc};

use serde::Serialize;
use tempfile::NamedTempFile;

pub(crate) use flavor::Runner;

use self::{
    description::Description,
    flavor::Python,
    schema::{Column, Schema},
};
use crate::{
    ServeError,
    python::{
        Entry, EntryKind, Own, PythonModel, Uses,
        environment::{Requirement, Wanted},
    },
    runtime::{Call, Logged, ModelRuntime, RuntimeError, Signature, Sink, Trials, Up},
    settings::ModelSettings,
};

/// The protocol's word for what runs these models.
pub(crate) const PLATFORM: &str = "mlflow";
/// What a model may ask for that runs nothing of it.
const OF_MLFLOW: [&str; 4] = ["mlflow", "mlflow-skinny", "mlflow-tracing", "mlflow-lite"];

/// An MLflow model, read but not loaded.
#[derive(Debug)]
pub(crate) struct MlflowModel {
    /// What runs it.
    pub(crate) runner: Runner,
    description: Description,
    schema: Schema,
}

/// What the worker is told: all that it needs to know of `MLmodel`, so that it need not read YAML.
#[derive(Serialize)]
struct Plan<'p> {
    folder: &'p Path,
    #[serde(flatten)]
    python: &'p Python,
    /// Whether the inputs are columns of one table.
    table: bool,
    inputs: Option<&'p [Column]>,
    outputs: Option<&'p [Column]>,
    params: Option<&'p serde_json::Value>,
    example: Option<&'p str>,
}

impl MlflowModel {
    /// Reads what is in a folder.
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

    /// What was logged of what it takes.
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
            // Columns without names are what comes, in its order.
            Some(_) => Logged::Table(Vec::new()),
        })
    }

    /// What its environment must have.
    ///
    /// # Errors
    /// What its requirements say that cannot be understood.
    pub(crate) fn wanted(&self, folder: &Path) -> Result<Option<Wanted>, ServeError> {
        let wanted = Wanted::of_folder(folder)?;
        let Runner::Python(python) = &self.runner else { return Ok(None) };
        if !python.is_native() {
            return Ok(wanted);
        }
        Ok(wanted.map(|wanted| {
            let mut wanted = wanted.without(&OF_MLFLOW);
            // It would have come with MLflow.
            if let Some(package) = python.reader() {
                let named = |requirement: &Requirement| package_of(&requirement.text) == package;
                if !wanted.requirements.iter().any(named) {
                    let file = folder.join(description::FILE);
                    wanted.requirements.push(Requirement { text: package.to_owned(), file, line: 0 });
                }
            }
            wanted
        }))
    }
}

/// The package's name in a requirement.
fn package_of(requirement: &str) -> &str {
    let end = requirement.find(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.".contains(letter));
    requirement[..end.unwrap_or(requirement.len())].trim_end()
}

/// An MLflow model in a worker.
pub(crate) struct MlflowWorker {
    worker: PythonModel,
    /// Read again by each worker that replaces a broken one.
    _plan: NamedTempFile,
}

impl MlflowWorker {
    /// Starts a worker for a model that Python runs. Blocks.
    ///
    /// # Errors
    /// Why there is no model, in the worker's words.
    pub(crate) fn open(
        model: &MlflowModel,
        python: &Python,
        folder: &Path,
        interpreter: &crate::python::environment::Interpreter,
        settings: &ModelSettings,
        cache: &Path,
    ) -> Result<Self, ServeError> {
        let plan = Plan {
            folder,
            python,
            table: model.schema.table,
            inputs: model.schema.inputs.as_deref(),
            outputs: model.schema.outputs.as_deref(),
            params: model.description.params.as_ref(),
            example: model.description.example.as_deref(),
        };
        let plan = write(&plan).map_err(|source| ServeError::Io {
            what: "the plan of an MLflow model cannot be written to the folder for temporary files".to_owned(),
            source,
        })?;
        // One that is loaded without MLflow asks nothing of it.
        let wanted = model.wanted(folder).ok().flatten();
        let uses = Uses::of(wanted.as_ref(), (!python.is_native()).then(|| "mlflow".to_owned()));
        let entry = Entry { kind: EntryKind::Mlflow, path: plan.path().to_owned(), known_as: folder.to_owned(), uses };
        let worker = PythonModel::open(&entry, interpreter, settings, cache)?;
        Ok(Self { worker, _plan: plan })
    }
}

fn write(plan: &Plan<'_>) -> std::io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("modelway-mlflow-").suffix(".json").tempfile()?;
    serde_json::to_writer(&mut file, plan)?;
    file.flush()?;
    Ok(file)
}

impl ModelRuntime for MlflowWorker {
    fn signature(&self) -> &Signature {
        self.worker.signature()
    }

    fn up(&self) -> Up {
        self.worker.up()
    }

    fn trials(&self) -> Trials {
        self.worker.trials()
    }

    fn metrics(&self) -> Option<Arc<Own>> {
        self.worker.metrics()
    }

    fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
        self.worker.infer(call, sink)
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
    fn a_package_is_told_from_its_version() {
        for (text, package) in
            [("skops==0.1", "skops"), ("skops", "skops"), ("skops >=1", "skops"), ("a.b-c_d[x]<2", "a.b-c_d")]
        {
            assert_eq!(package_of(text), package);
        }
    }

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
