//! MLflow models that a worker runs.

use std::{io::Write as _, path::Path, sync::Arc};

use serde::Serialize;
use tempfile::NamedTempFile;

use super::{
    entry::{Entry, EntryKind},
    environment::{Interpreter, Requirement, Wanted},
    instance::PythonModel,
    variables::Uses,
};
use crate::{
    ServeError,
    mlflow::{MlflowModel, Runner, description, flavor::Python, schema::Column},
    runtime::{Call, ModelRuntime, RuntimeError, Signature, Sink, Trials, Up, own::Own},
    settings::ModelSettings,
};

/// What a model may ask for that runs nothing of it.
const OF_MLFLOW: [&str; 4] = ["mlflow", "mlflow-skinny", "mlflow-tracing", "mlflow-lite"];

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
        interpreter: &Interpreter,
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
    use super::*;

    #[test]
    fn a_package_is_told_from_its_version() {
        for (text, package) in
            [("skops==0.1", "skops"), ("skops", "skops"), ("skops >=1", "skops"), ("a.b-c_d[x]<2", "a.b-c_d")]
        {
            assert_eq!(package_of(text), package);
        }
    }
}
