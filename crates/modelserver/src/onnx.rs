//! ONNX models, run in this process by ONNX Runtime.
//!
//! Inputs are lent to the runtime, not copied. Outputs are copied out once. What classifiers of scikit-learn
//! emit beside tensors, a sequence of maps from class to score, becomes one FP32 tensor `[n, classes]` whose
//! classes stand in the metadata, once a first run has shown them.

pub(crate) mod library;
mod values;

use std::{path::Path, sync::Arc};

use api::inference::{Datatype, Tensor, TensorMetadata};
use ort::{
    ErrorCode,
    environment::Environment,
    logging::LogLevel,
    session::{RunOptions, Session, SessionInputValue, SessionOutputs},
    value::{Outlet, ValueType},
};

use crate::{
    error::ServeError,
    runtime::{Call, ModelRuntime, RuntimeError, Signature, Sink},
};

/// The protocol's word for models that ONNX Runtime runs.
const PLATFORM: &str = "onnxruntime_onnx";

/// A loaded ONNX model.
pub(crate) struct OnnxModel {
    session: Session,
    options: Arc<RunOptions>,
    signature: Signature,
}

impl OnnxModel {
    /// Loads a file. Blocks.
    pub(crate) fn load(environment: &Environment, file: &Path, intra_op_threads: usize) -> Result<Self, ServeError> {
        let failed = |reason: String| ServeError::Load { path: file.to_owned(), reason };
        let session = open(environment, file, intra_op_threads)
            .map_err(|e| failed(without_path(e.message(), file).to_owned()))?;
        let inputs = session.inputs().iter().map(describe_input).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let outputs = session.outputs().iter().map(describe_output).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let options = quiet_options().map_err(|e| failed(e.message().to_owned()))?;
        let signature =
            Signature { platform: PLATFORM, rows: rows(&inputs, &outputs), streams: false, inputs, outputs };
        Ok(Self { session, options: Arc::new(options), signature })
    }
}

fn open(environment: &Environment, file: &Path, intra_op_threads: usize) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_intra_threads(intra_op_threads)?
        .with_inter_threads(1)?
        // Spinning threads would take the CPU from the server's own.
        .with_intra_op_spinning(false)?
        // What goes wrong comes back as an error, and is told once, where it is handled.
        .with_log_level(LogLevel::Fatal)?
        .commit_from_file(file)
}

/// The runtime's reason without its own mention of the file, which our error begins with.
fn without_path<'m>(message: &'m str, file: &Path) -> &'m str {
    let beginning = format!("Load model from {} failed:", file.display());
    message.strip_prefix(&beginning).unwrap_or(message)
}

fn quiet_options() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set_log_level(LogLevel::Fatal)?;
    Ok(options)
}

/// How many threads one inference uses: as many as configured, and if that is 0, few, because small machines
/// have other work for their second core, and small models lose more than they win.
pub(crate) fn threads(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    match crate::placement::cpus() {
        0..=4 => 1,
        more => (more / 2).min(8),
    }
}

/// Whether the first dimension of all tensors is one that may vary: what a batch looks like.
fn rows(inputs: &[TensorMetadata], outputs: &[TensorMetadata]) -> bool {
    inputs.iter().chain(outputs).all(|tensor| tensor.shape.first() == Some(&-1))
}

impl ModelRuntime for OnnxModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
        let mut values: Vec<SessionInputValue<'_>> = Vec::with_capacity(call.inputs.len());
        for input in call.inputs {
            values.push(values::to_onnx(input)?);
        }
        let (session, signature) = (&mut self.session, &mut self.signature);
        let hook = Arc::clone(&self.options);
        let terminate = move || {
            // Only fails without a runtime.
            let _ = hook.terminate();
        };
        let result = call.cancel.watch(terminate, || {
            session
                .run_with_options(values.as_slice(), &self.options)
                .map_err(|error| sort(&error))
                .and_then(|made| collect(&made, call.outputs, signature))
        });
        if call.cancel.is_cancelled() {
            let _ = self.options.unterminate();
            return Err(RuntimeError::Cancelled);
        }
        sink.send(result?);
        Ok(())
    }
}

/// Whose fault a failed run is.
fn sort(error: &ort::Error) -> RuntimeError {
    let message = error.message().to_owned();
    if error.code() == ErrorCode::InvalidArgument {
        RuntimeError::Rejected(format!("the model refuses these inputs: {message}"))
    } else {
        RuntimeError::Failed(format!("the model failed: {message}"))
    }
}

fn collect(
    made: &SessionOutputs<'_>,
    wanted: &[usize],
    signature: &mut Signature,
) -> Result<Vec<Tensor>, RuntimeError> {
    let mut outputs = Vec::with_capacity(wanted.len());
    for &place in wanted {
        let described = &mut signature.outputs[place];
        let value = &made[place];
        let (shape, data, labels) = values::from_onnx(value)
            .map_err(|reason| RuntimeError::Failed(format!("output `{}`: {reason}", described.name)))?;
        if described.labels.is_empty()
            && let Some(labels) = labels
        {
            if let Some(columns) = described.shape.get_mut(1) {
                *columns = i64::try_from(labels.len()).unwrap_or(-1);
            }
            described.labels = labels;
        }
        outputs.push(Tensor { name: described.name.clone(), shape, data });
    }
    Ok(outputs)
}

fn describe_input(outlet: &Outlet) -> Result<TensorMetadata, String> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let datatype = values::datatype(*ty).map_err(|reason| format!("input `{}` {reason}", outlet.name()))?;
            Ok(describe(outlet, datatype, shape.to_vec()))
        }
        other @ (ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_)) => {
            Err(format!("input `{}` is {other}, and the protocol can only send tensors", outlet.name()))
        }
    }
}

fn describe_output(outlet: &Outlet) -> Result<TensorMetadata, String> {
    let refuse = |reason: String| format!("output `{}` {reason}", outlet.name());
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            Ok(describe(outlet, values::datatype(*ty).map_err(refuse)?, shape.to_vec()))
        }
        ValueType::Map { value, .. } => Ok(describe(outlet, values::datatype(*value).map_err(refuse)?, vec![1, -1])),
        ValueType::Sequence(inner) => match inner.as_ref() {
            ValueType::Map { value, .. } => {
                Ok(describe(outlet, values::datatype(*value).map_err(refuse)?, vec![-1, -1]))
            }
            other @ (ValueType::Tensor { .. } | ValueType::Sequence(_) | ValueType::Optional(_)) => {
                Err(refuse(format!("is a sequence of {other}, which is not a tensor: export the model without it")))
            }
        },
        other @ ValueType::Optional(_) => Err(refuse(format!("is {other}, which is not a tensor"))),
    }
}

fn describe(outlet: &Outlet, datatype: Datatype, shape: Vec<i64>) -> TensorMetadata {
    TensorMetadata { name: outlet.name().to_owned(), datatype, shape, labels: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failed_load_does_not_name_the_file_again() {
        let file = Path::new("/m/model.onnx");
        let said = "Load model from /m/model.onnx failed:Protobuf parsing failed.";
        assert_eq!(without_path(said, file), "Protobuf parsing failed.");
        assert_eq!(without_path("no memory", file), "no memory");
    }
}
