//! From a recognised source to the runtimes that run it: the one place that knows every kind of runtime.

use std::path::Path;

use ort::environment::Environment;

use crate::{
    Config, ServeError,
    mlflow::{MlflowModel, MlflowWorker, Runner},
    onnx::{self, OnnxModel},
    python::{
        Entry, EntryKind, PythonModel,
        environment::{self, Interpreter, Wanted},
    },
    runtime::ModelRuntime,
    settings::ModelSettings,
    source::{Kind, ModelFile},
};

/// What runtimes of every kind may need.
#[derive(Debug)]
pub(crate) struct Opener<'c> {
    pub(crate) config: &'c Config,
}

impl Opener<'_> {
    /// One instance of a model, loaded. Blocks.
    pub(crate) fn open(&self, file: &ModelFile, settings: &ModelSettings) -> Result<Box<dyn ModelRuntime>, ServeError> {
        match file.kind {
            Kind::Onnx => {
                Ok(Box::new(OnnxModel::load(&self.onnx()?, &file.path, onnx::threads(settings.intra_op_threads))?))
            }
            Kind::Mlflow => self.mlflow(&file.path, settings),
            Kind::Python => {
                let folder = file.path.parent().unwrap_or(&file.path);
                let interpreter = environment::of_model(folder, settings.python.as_deref(), self.config, &[])?;
                let entry = Entry { kind: EntryKind::Class, path: file.path.clone() };
                Ok(Box::new(PythonModel::open(&entry, &interpreter, settings, &self.config.cache.folder())?))
            }
        }
    }

    fn mlflow(&self, folder: &Path, settings: &ModelSettings) -> Result<Box<dyn ModelRuntime>, ServeError> {
        let model = MlflowModel::read(folder)?;
        match &model.runner {
            Runner::Onnx(file) => {
                Ok(Box::new(OnnxModel::load(&self.onnx()?, file, onnx::threads(settings.intra_op_threads))?))
            }
            Runner::Python(python) => {
                let interpreter = self.interpreter(settings, || model.wanted(folder))?;
                Ok(Box::new(MlflowWorker::open(
                    &model,
                    python,
                    folder,
                    &interpreter,
                    settings,
                    &self.config.cache.folder(),
                )?))
            }
        }
    }

    /// What runs a Python model: the interpreter that the settings name, else an environment with all that the
    /// model wants, else the `python3` that is there.
    fn interpreter(
        &self,
        settings: &ModelSettings,
        wanted: impl FnOnce() -> Result<Option<Wanted>, ServeError>,
    ) -> Result<Interpreter, ServeError> {
        if let Some(python) = &settings.python {
            return Ok(Interpreter { path: python.into(), origin: "the setting `python`".to_owned() });
        }
        match wanted()? {
            Some(wanted) => environment::prepare(&wanted, &self.config.cache.folder(), None),
            None => Ok(Interpreter { path: "python3".into(), origin: "python3 on the PATH".to_owned() }),
        }
    }

    /// ONNX Runtime, opened when the first model needs it.
    fn onnx(&self) -> Result<Environment, ServeError> {
        onnx::library::environment(self.config.onnxruntime.as_deref())
    }
}
