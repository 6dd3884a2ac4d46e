//! Runs before a model is ready, so that the first request does not pay one-time costs of the runtime.
//!
//! Declared samples must work. Generated inputs may be outside of what a model accepts (an unknown word, an index out
//! of range), so their failure is only logged.

use std::{fs, path::Path};

use inference::{Data, Datatype, Tensor, element_count};

use crate::{
    ServeError,
    run::validate,
    runtime::sample::{self, Generator},
    runtime::{Call, Cancel, Last, ModelRuntime, Purpose, RuntimeError, Sink, TrialRuns},
    source::ModelFile,
    source::declared::{Declared, Warmup, WarmupData, WarmupInput},
};

/// The folder with the warm-up files of a model, next to its versions.
const FOLDER: &str = "warmup";
/// A warm-up with more elements than this is treated as an attack on the memory.
const MOST_ELEMENTS: usize = 1 << 26;

/// Runs the declared samples, or a generated one, which `cancel` may end. `again`: whether a probe or golden examples
/// run the model once more before it is used, so that a model with few trial runs needs none here.
pub(crate) fn warm(
    runtime: &mut dyn ModelRuntime,
    file: &ModelFile,
    declared: &Declared,
    folder: Option<&Path>,
    cancel: &Cancel,
    again: bool,
) -> Result<(), ServeError> {
    if declared.warmups.is_empty() {
        match runtime.trials().runs {
            TrialRuns::Many => made_up(runtime, &file.path, cancel),
            TrialRuns::Few if !again => made_up(runtime, &file.path, cancel),
            TrialRuns::Few | TrialRuns::None => {}
        }
        return Ok(());
    }
    for warmup in &declared.warmups {
        configured(runtime, warmup, folder)
            .map_err(|reason| declared.wrong(format!("the warm-up {:?}: {reason}", warmup.name)))?;
    }
    Ok(())
}

fn made_up(runtime: &mut dyn ModelRuntime, file: &Path, cancel: &Cancel) {
    let inputs: Option<Vec<_>> = runtime.signature().inputs.iter().map(sample::ones).collect();
    let Some(inputs) = inputs else {
        tracing::info!(model = %file.display(), "not warmed: its inputs are too large to make up");
        return;
    };
    if inputs.is_empty() {
        // An MLflow model without a signature: its inputs are unknown.
        return;
    }
    if let Err(error) = run(runtime, &inputs, cancel, Purpose::Trial) {
        match runtime.trials().runs {
            TrialRuns::Many => {
                tracing::warn!(model = %file.display(), error, "the model failed on made-up inputs, and may on real ones");
            }
            TrialRuns::Few | TrialRuns::None => {
                tracing::debug!(model = %file.display(), error, "the model failed on made-up inputs");
            }
        }
    }
}

fn configured(runtime: &mut dyn ModelRuntime, warmup: &Warmup, folder: Option<&Path>) -> Result<(), String> {
    let mut generator = Generator::new();
    let mut inputs = Vec::with_capacity(warmup.inputs.len());
    for (name, input) in &warmup.inputs {
        let tensor = tensor(name, input, warmup.batch_size, folder, &mut generator);
        inputs.push(tensor.map_err(|reason| format!("input `{name}`: {reason}"))?);
    }
    let inputs = validate::order_inputs(runtime.signature(), inputs).map_err(|e| e.to_string())?;
    (0..warmup.count).try_for_each(|_| run(runtime, &inputs, &Cancel::default(), Purpose::Example))
}

fn tensor(
    name: &str,
    input: &WarmupInput,
    rows: i64,
    folder: Option<&Path>,
    generator: &mut Generator,
) -> Result<Tensor, String> {
    let shape: Vec<i64> = (rows > 0).then_some(rows).into_iter().chain(input.dims.iter().copied()).collect();
    let count = element_count(&shape).map_err(|e| e.to_string())?;
    if count > MOST_ELEMENTS {
        return Err(format!("the shape {shape:?} is too large"));
    }
    let data = match &input.data {
        WarmupData::Zero if input.datatype == Datatype::Bytes => Data::Bytes(vec![bytes::Bytes::new(); count]),
        WarmupData::Zero => Data::zeros(input.datatype, count),
        WarmupData::Random => generator.data(input.datatype, count),
        WarmupData::File(file) => read(file, folder, input.datatype, &shape)?,
    };
    Ok(Tensor { name: name.to_owned(), shape, data })
}

/// The bytes of a file, in the form of binary tensors.
fn read(file: &str, folder: Option<&Path>, datatype: Datatype, shape: &[i64]) -> Result<Data, String> {
    let plain = Path::new(file).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let folder = folder.filter(|_| plain).ok_or_else(|| format!("{file:?} is no file in the folder `{FOLDER}`"))?;
    let path = folder.join(FOLDER).join(file);
    let bytes = fs::read(&path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    Data::from_binary(datatype, shape, &bytes.into()).map_err(|e| format!("{}: {e}", path.display()))
}

fn run(runtime: &mut dyn ModelRuntime, inputs: &[Tensor], cancel: &Cancel, purpose: Purpose) -> Result<(), String> {
    let outputs: Vec<usize> = (0..runtime.signature().outputs.len()).collect();
    let call = Call {
        inputs,
        outputs: &outputs,
        parameters: &Default::default(),
        input_parameters: &Default::default(),
        cancel,
        purpose,
    };
    if !runtime.signature().streams {
        return runtime.infer(call, &mut Last::default()).map_err(|error| error.to_string());
    }
    let mut first = First(false);
    match runtime.infer(call, &mut first) {
        Err(RuntimeError::Cancelled) if first.0 => Ok(()),
        result => result.map_err(|error| error.to_string()),
    }
}

/// Only the first answer is needed: a stream may be endless.
struct First(bool);

impl Sink for First {
    fn send(&mut self, _: Vec<Tensor>) -> bool {
        self.0 = true;
        false
    }
}
