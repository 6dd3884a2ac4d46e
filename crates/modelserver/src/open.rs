//! From a recognised source to the runtimes that run it: the one place that knows every kind of runtime.

use ort::environment::Environment;

use crate::{
    Config, ServeError,
    onnx::{self, OnnxModel},
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
            Kind::Python | Kind::Mlflow => Err(ServeError::Source(format!(
                "{} is a Python model, which cannot be served yet: export it to ONNX",
                file.path.display()
            ))),
        }
    }

    /// ONNX Runtime, opened when the first model needs it.
    fn onnx(&self) -> Result<Environment, ServeError> {
        onnx::library::environment(self.config.onnxruntime.as_deref())
    }
}
