//! Opens a recognised source with its runtime: the only module that knows all kinds of runtimes.

use std::path::Path;

use crate::{
    Config, ServeError,
    mlflow::{MlflowModel, Runner},
    onnx,
    python::{
        Entry, EntryKind, MlflowWorker, PythonModel, Uses, check_hints,
        environment::{self, Wanted},
    },
    runtime::ModelRuntime,
    settings::ModelSettings,
    source::{Kind, ModelFile},
};

/// The context that all kinds of runtimes may need.
#[derive(Debug)]
pub(crate) struct Opener<'c> {
    pub(crate) config: &'c Config,
}

impl Opener<'_> {
    /// One instance of a model, loaded. Blocks.
    pub(crate) fn open(&self, file: &ModelFile, settings: &ModelSettings) -> Result<Box<dyn ModelRuntime>, ServeError> {
        match file.kind {
            Kind::Onnx => onnx::open(self.config, &file.path, settings),
            Kind::Mlflow => self.mlflow(&file.path, settings),
            Kind::Python => {
                let folder = file.path.parent().unwrap_or(&file.path);
                let cache = self.config.python_folder();
                let wanted = || {
                    let wanted = Wanted::of_folder(folder)?;
                    if wanted.as_ref().is_some_and(|wanted| !environment::is_built(wanted, &cache)) {
                        check_hints(&file.path, &cache)?;
                    }
                    Ok(wanted)
                };
                let interpreter = environment::choose(settings.python.as_deref(), wanted, self.config)?;
                // With its own interpreter, an unreadable list of packages does not matter.
                let uses = Uses::of_class(Wanted::of_folder(folder).ok().flatten().as_ref(), &file.path);
                let path = file.path.clone();
                let entry = Entry { kind: EntryKind::Class, known_as: path.clone(), path, uses };
                Ok(Box::new(PythonModel::open(&entry, &interpreter, settings, &cache)?))
            }
        }
    }

    /// The same in a separate process, if this one would run the model and loading can be tried there first. Blocks.
    pub(crate) fn open_to_try(
        &self,
        file: &ModelFile,
        settings: &ModelSettings,
    ) -> Result<Option<Box<dyn ModelRuntime>>, ServeError> {
        match file.kind {
            Kind::Onnx => onnx::open_to_try(self.config, &file.path, settings),
            Kind::Mlflow => match &MlflowModel::read(&file.path)?.runner {
                Runner::Onnx(file) => onnx::open_to_try(self.config, file, settings),
                Runner::Python(_) => Ok(None),
            },
            Kind::Python => Ok(None),
        }
    }

    fn mlflow(&self, folder: &Path, settings: &ModelSettings) -> Result<Box<dyn ModelRuntime>, ServeError> {
        let model = MlflowModel::read(folder)?;
        match &model.runner {
            Runner::Onnx(file) => onnx::open(self.config, file, settings),
            Runner::Python(python) => {
                let wanted = || model.wanted(folder);
                let interpreter = environment::choose(settings.python.as_deref(), wanted, self.config)?;
                Ok(Box::new(MlflowWorker::open(
                    &model,
                    python,
                    folder,
                    &interpreter,
                    settings,
                    &self.config.python_folder(),
                )?))
            }
        }
    }
}
