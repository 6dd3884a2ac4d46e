//! ONNX models, run in this process by ONNX Runtime.
//!
//! Inputs are lent to the runtime, not copied. Outputs are copied out once. What classifiers of scikit-learn
//! emit beside tensors, a sequence of maps from class to score, becomes one FP32 tensor `[n, classes]` whose
//! classes stand in the metadata, once a first run has shown them. A sequence of tensors of one shape becomes one
//! tensor. After a model is loaded its files are not read again: they may be deleted, shortened or replaced.

mod apart;
pub(crate) mod child;
mod crash;
mod describe;
mod external;
mod graph;
pub(crate) mod library;
mod memory;
mod strings;
mod trial;
mod values;
mod words;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use inference::{Tensor, TensorMetadata};
use ort::{
    logging::LogLevel,
    session::{RunOptions, Session, SessionInputValue, SessionInputs, SessionOutputs},
    value::ValueType,
};

pub use apart::ONNX_CHILD;
pub use crash::start_again_after_crashes;
pub(crate) use external::is_whole;

use self::{
    apart::{Apart, Opened, Program, Unanswered},
    crash::{Key, Threads},
    graph::sizes::Fatal,
    library::Runtime,
    memory::GivesBack,
    trial::Trials,
    words::Fault,
};
use crate::{
    Config,
    error::ServeError,
    runtime::{Call, ModelRuntime, ONNX, RuntimeError, Screen, Signature, Sink},
    settings::ModelSettings,
};

/// A loaded ONNX model.
pub(crate) struct OnnxModel {
    session: Session,
    options: Arc<RunOptions>,
    signature: Signature,
    /// The names of the inputs' dimensions, where the model names them; else they are empty.
    symbols: Vec<Vec<String>>,
    /// Whether an output may be left out by the model.
    optional: bool,
    /// Whether a run has ever worked.
    has_run: bool,
    /// The largest answer, in bytes.
    largest: usize,
    /// What keeps this process from its crashes; none where the process is the model's own.
    guard: Option<Guard>,
    /// Dropped after the session.
    _gives_back: GivesBack,
}

/// Against crashes of the runtime.
struct Guard {
    trials: Arc<Trials>,
    key: Key,
}

/// Loads a model into this process, or into one of its own if it has ended a server before or is likely to. Blocks.
pub(crate) fn open(
    config: &Config,
    file: &Path,
    settings: &ModelSettings,
) -> Result<Box<dyn ModelRuntime>, ServeError> {
    let runtime = library::runtime(config.onnxruntime.as_deref())?;
    let threads = crate::machine::placement::threads(settings.intra_op_threads);
    let weights = external::names(file)?;
    let graph = graph::Model::read(file);
    let Ok(key) = Key::of(file, &weights) else {
        // Loading says why.
        return Ok(Box::new(OnnxModel::load_here(&runtime, file, weights, graph, threads, None)?));
    };
    let folder = folder(config);
    let (program, open) = elsewhere(config, file, settings);
    let crashed = crash::of_model(&folder, key).map(|signal| {
        format!(
            "it ended its process with {signal}. Delete {} to serve it in the server again",
            crash::file(&folder).display()
        )
    });
    let fatal = graph.as_ref().ok().and_then(graph::Model::fatal);
    if let Some(why) = crashed.or_else(|| likely_to_crash(fatal.as_ref())) {
        let note = format!("served in a process of its own: {why}");
        tracing::warn!("{}: {note}", file.display());
        let apart = Apart::open(program, open, settings.load_timeout, Some(note));
        return Ok(Box::new(apart.map_err(|why| apart::unloadable(why, file))?));
    }
    crash::watch(&folder);
    crate::machine::memory::bound_this_process();
    let load = || OnnxModel::load_here(&runtime, file, weights, graph, threads, Some(key));
    let model = crash::during(key, load)?;
    let mut model = model.with_largest(config.bodies_limit_bytes);
    let kept = folder.join(format!("{}.json", key.text()));
    let by_sizes = fatal.and_then(|fatal| match fatal {
        Fatal::BySizes { numbers } => Some(numbers),
        Fatal::Anyhow(_) => None,
    });
    let trials = Trials::new(program, open, settings.timeout, kept, by_sizes);
    model.guard = Some(Guard { trials: Arc::new(trials), key });
    Ok(Box::new(model))
}

/// Loads a model into a process of its own, where the runs of its loading can end nothing else; a crash in them is noted,
/// so that [`open`] loads it into such a process too. `None` if nothing is to be tried: [`open`] does so anyway, or there
/// is none to be had. Blocks.
pub(crate) fn open_to_try(
    config: &Config,
    file: &Path,
    settings: &ModelSettings,
) -> Result<Option<Box<dyn ModelRuntime>>, ServeError> {
    // With the library's own words if there is none.
    library::runtime(config.onnxruntime.as_deref())?;
    let Ok(key) = Key::of(file, &external::names(file)?) else { return Ok(None) };
    let folder = folder(config);
    let fatal = graph::Model::read(file).ok().and_then(|graph| graph.fatal());
    if crash::of_model(&folder, key).is_some() || likely_to_crash(fatal.as_ref()).is_some() {
        return Ok(None);
    }
    let (program, open) = elsewhere(config, file, settings);
    match Apart::open(program, open, settings.load_timeout, None) {
        Ok(apart) => Ok(Some(Box::new(apart.noting_crashes(folder, key)))),
        Err(why @ (Unanswered::Refused(_) | Unanswered::Crashed(_) | Unanswered::Ended(_))) => {
            Err(apart::unloadable(why, file))
        }
        Err(Unanswered::Killed(why) | Unanswered::NotStarted(why)) => {
            tracing::warn!("{}: it is loaded without being tried elsewhere first: {why}", file.display());
            Ok(None)
        }
    }
}

/// Why a model may crash on inputs like any others, if nothing of them tells beforehand. A graph that cannot be read says
/// nothing.
fn likely_to_crash(fatal: Option<&Fatal>) -> Option<String> {
    let Some(Fatal::Anyhow(operator)) = fatal else { return None };
    Some(format!(
        "the values or sizes of its inputs decide a size in its {operator}, and ONNX Runtime may end the process where that is 0"
    ))
}

/// Where what was found out about models is kept.
fn folder(config: &Config) -> PathBuf {
    config.python_folder().join("onnx")
}

/// How a model is loaded into a process of its own.
fn elsewhere(config: &Config, file: &Path, settings: &ModelSettings) -> (Program, Opened) {
    let open = Opened {
        file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
        library: config.onnxruntime.clone(),
        threads: crate::machine::placement::threads(settings.intra_op_threads),
        memory: crate::machine::memory::limit(settings.python_memory),
        largest: config.bodies_limit_bytes,
        low_priority: false,
    };
    (Program::of(&config.onnx_child), open)
}

impl OnnxModel {
    /// The same with a bound on its answers, in bytes.
    fn with_largest(self, largest: usize) -> Self {
        Self { largest, ..self }
    }

    /// Loads a file of this `graph`, with its `weights` in files of these names, into this process. Blocks. Crashes of the
    /// runtime's own threads for it are those of the model of `key`.
    fn load_here(
        runtime: &Runtime,
        file: &Path,
        weights: Vec<PathBuf>,
        graph: io::Result<graph::Model>,
        intra_op_threads: usize,
        key: Option<Key>,
    ) -> Result<Self, ServeError> {
        // Dropped after the session, also where the load fails.
        let gives_back = GivesBack;
        let failed = |reason: String| ServeError::Load { path: file.to_owned(), reason };
        let weights = external::files(file, weights)?;
        let session = session(runtime, file, weights, intra_op_threads, key)
            .map_err(|e| failed(words::of_load(e.message(), file, || graph.as_ref().ok()?.opset())))?;
        // The runs are another thread's.
        memory::give_back_own();
        let inputs = session.inputs().iter().map(describe::input).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let outputs = session.outputs().iter().map(describe::output).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let symbols = session.inputs().iter().map(describe::symbols).collect();
        let initializers = session.overridable_initializers();
        // A tensor that does not fit the protocol keeps the value that the model has for it.
        let defaults: Vec<_> = initializers.iter().filter_map(describe::default).collect();
        let of_rows = rows(&inputs, &outputs);
        let read = (of_rows || inputs.iter().chain(&defaults).any(|input| input.shape.is_empty()))
            .then(|| graph.map_err(|e| failed(format!("its graph cannot be read: {e}"))))
            .transpose()?;
        let unranked = |input: &TensorMetadata| read.as_ref().is_some_and(|model| model.is_unranked(&input.name));
        let all = inputs.iter().chain(&defaults).enumerate();
        let unranked = all.filter_map(|(place, input)| unranked(input).then_some(place)).collect();
        let sized_by_values = of_rows && read.as_ref().is_some_and(|graph| graph.sizes().depend_on_values);
        if sized_by_values {
            let file = file.display();
            tracing::info!("{file}: each request is run by itself: the size of an output depends on what is in it");
        }
        let optional = session.outputs().iter().any(|output| matches!(output.dtype(), ValueType::Optional(_)));
        let options = quiet_options().map_err(|e| failed(e.message().to_owned()))?;
        let signature = Signature {
            platform: ONNX,
            rows: of_rows && !sized_by_values,
            inputs,
            defaults,
            unranked,
            outputs,
            ..Signature::default()
        };
        Ok(Self {
            session,
            options: Arc::new(options),
            signature,
            symbols,
            optional,
            has_run: false,
            largest: usize::MAX,
            guard: None,
            _gives_back: gives_back,
        })
    }
}

fn session(
    runtime: &Runtime,
    file: &Path,
    weights: external::Files,
    intra_op_threads: usize,
    key: Option<Key>,
) -> ort::Result<Session> {
    let mut builder = Session::builder(&runtime.environment)?
        .with_intra_threads(intra_op_threads)?
        .with_inter_threads(1)?
        // Spinning threads would take the CPU from the server's own.
        .with_intra_op_spinning(false)?
        .with_log_level(LogLevel::Fatal)?;
    if runtime.shares_memory {
        builder = builder.with_env_allocators()?;
    }
    if let Some(key) = key.filter(|_| intra_op_threads > 1) {
        builder = builder.with_thread_manager(Threads(key))?;
    }
    for (name, bytes) in weights {
        builder = builder.with_external_initializer_file_in_memory(name, bytes)?;
    }
    builder.commit_from_file(file)
}

fn quiet_options() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set_log_level(LogLevel::Fatal)?;
    Ok(options)
}

/// Whether the first dimension of all tensors is one that may vary: what a batch looks like.
fn rows(inputs: &[TensorMetadata], outputs: &[TensorMetadata]) -> bool {
    inputs.iter().chain(outputs).all(|tensor| tensor.shape.first() == Some(&-1))
}

impl ModelRuntime for OnnxModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn screen(&self) -> Option<Arc<dyn Screen>> {
        self.guard.as_ref().map(|guard| Arc::clone(&guard.trials) as Arc<dyn Screen>)
    }

    fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
        let key = self.guard.as_ref().map(|guard| guard.key);
        if let Some(guard) = &self.guard {
            guard.trials.admit(call.inputs)?;
        }
        // What a run has made is also given back in it: the runtime may find only then that its memory is in disorder.
        let made = match key {
            Some(key) => crash::during(key, || self.run(&call)),
            None => self.run(&call),
        };
        sink.send(made?);
        Ok(())
    }
}

impl OnnxModel {
    /// One run. Blocks.
    fn run(&mut self, call: &Call<'_>) -> Result<Vec<Tensor>, RuntimeError> {
        let mut values: Vec<SessionInputValue<'_>> = Vec::with_capacity(call.inputs.len());
        for input in call.inputs {
            values.push(values::to_onnx(input)?);
        }
        let more = call.inputs.get(self.signature.inputs.len()..).unwrap_or_default();
        let Self { session, options, signature, symbols, optional, has_run, largest, .. } = self;
        let hook = Arc::clone(options);
        let terminate = move || {
            // Only fails without a runtime.
            let _ = hook.terminate();
        };
        let result = call.cancel.watch(terminate, || {
            let options = options.as_ref();
            let given: SessionInputs<'_, '_> = if more.is_empty() {
                values.as_slice().into()
            } else {
                let names = signature.inputs.iter().map(|input| input.name.clone());
                let names = names.chain(more.iter().map(|input| input.name.clone()));
                names.zip(values).collect::<Vec<_>>().into()
            };
            let run = move || session.run_with_options(given, options);
            let (made, crowded_out) = memory::of_a_run(|| if *optional { without_panic(run) } else { Ok(run()) });
            match made? {
                Ok(made) => {
                    *has_run = true;
                    bounded(&made, call.outputs, signature, *largest)?;
                    collect(&made, call.outputs, signature)
                }
                Err(error) if crowded_out && words::is_of_memory(error.message()) => {
                    Err(RuntimeError::MemoryFull(words::of_crowded_memory(call.inputs)))
                }
                Err(error) => Err(sort(&error, &signature.inputs, symbols, call.inputs, *has_run)),
            }
        });
        if call.cancel.is_cancelled() {
            let _ = self.options.unterminate();
            return Err(RuntimeError::Cancelled);
        }
        result
    }
}

/// The binding to the runtime panics when a model leaves an optional output out.
fn without_panic<T>(run: impl FnOnce() -> T) -> Result<T, RuntimeError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        RuntimeError::Rejected(
            "with these inputs the model leaves out an optional output: export it without `Optional` outputs"
                .to_owned(),
        )
    })
}

/// Whose fault a failed run is.
fn sort(
    error: &ort::Error,
    wanted: &[TensorMetadata],
    symbols: &[Vec<String>],
    given: &[Tensor],
    has_run: bool,
) -> RuntimeError {
    if let Some(words) = words::of_symbols(symbols, given) {
        return RuntimeError::Rejected(words);
    }
    let fault = words::fault(error.code(), has_run);
    let words = words::of_run(error.message(), fault, wanted, given);
    match fault {
        Fault::Inputs => RuntimeError::Rejected(words),
        Fault::Model => RuntimeError::Failed(words),
    }
}

/// Whether an answer is small enough to be copied and sent.
fn bounded(
    made: &SessionOutputs<'_>,
    wanted: &[usize],
    signature: &Signature,
    largest: usize,
) -> Result<(), RuntimeError> {
    let mut bytes = 0usize;
    for &place in wanted {
        let (ValueType::Tensor { .. }, described) = (made[place].dtype(), &signature.outputs[place]) else { continue };
        let count = inference::element_count(made[place].shape()).unwrap_or(usize::MAX);
        bytes = bytes.saturating_add(count.saturating_mul(described.datatype.size().unwrap_or(1)));
        if bytes > largest {
            return Err(RuntimeError::Rejected(format!(
                "with these inputs output `{}` has the shape {:?}, and the answer more than {largest} bytes \
                 (serve.bodies_limit_bytes)",
                described.name,
                made[place].shape().to_vec()
            )));
        }
    }
    Ok(())
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
        let (shape, data, labels) = values::from_onnx(value).map_err(|unsent| {
            let words = format!("output `{}`: {}", described.name, unsent.reason);
            // Pieces of different sizes are what these inputs make of the model, and others may not.
            if unsent.by_inputs { RuntimeError::Rejected(words) } else { RuntimeError::Failed(words) }
        })?;
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
