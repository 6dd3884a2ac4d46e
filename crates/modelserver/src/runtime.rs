//! The trait of all model runtimes.
//!
//! A runtime is synchronous and belongs to one thread at a time. It gets tensors that fit its signature, in the order
//! of the signature. It passes its answers to a [`Sink`]: one for a plain model, any number for a streaming one. A
//! [`Cancel`] tells it that nobody waits any more. It knows nothing about requests: if several requests are batched,
//! their rows are joined before and split afterwards.

pub(crate) mod alarm;
pub(crate) mod own;
pub(crate) mod sample;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use inference::{Data, InputParameters, Json, Nan, Parameters, Tensor, TensorMetadata};

use self::own::Own;

/// The protocol's word for models that ONNX Runtime runs.
pub(crate) const ONNX: &str = "onnxruntime_onnx";
/// The protocol's word for what runs MLflow models.
pub(crate) const MLFLOW: &str = "mlflow";

/// What a model wants and answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// The protocol's name of its runtime.
    pub platform: &'static str,
    /// Its inputs, in its own order.
    pub inputs: Vec<TensorMetadata>,
    /// Inputs with default values in the model, which requests may override. The runtime gets the given ones after its
    /// inputs.
    pub defaults: Vec<TensorMetadata>,
    /// The positions of the inputs, with `defaults` after them, whose number of dimensions the model does not declare.
    /// All others with an empty shape are scalars.
    pub unranked: Vec<usize>,
    /// The positions of the inputs that a request may leave out. For an MLflow table such an input has no rows; for
    /// others it is [`absent`].
    pub optional: Vec<usize>,
    /// The positions of the inputs with bytes, which MLflow's clients send as base64.
    pub base64: Vec<usize>,
    /// The positions of the `BYTES` inputs whose elements are JSON. In V1 they are ordinary values.
    pub json: Vec<usize>,
    /// Whether the model checks the JSON of a body itself, so that it is not converted to tensors.
    pub plain: bool,
    /// Whether the model reads the parameters of its inputs.
    pub input_parameters: bool,
    /// Its outputs, in its own order.
    pub outputs: Vec<TensorMetadata>,
    /// The MLflow signature of a model that this server runs itself.
    pub logged: Logged,
    /// Whether the first dimension of every tensor counts independent rows, so that several requests may be batched.
    pub rows: bool,
    /// Whether one run may return more than one answer.
    pub streams: bool,
}

impl Signature {
    /// How a missing float is written in JSON: for a Python model as null, like every other missing value.
    pub(crate) fn nan(&self) -> Nan {
        if self.platform == MLFLOW || self.platform.starts_with("python") { Nan::Null } else { Nan::Word }
    }
}

/// The logged signature of an MLflow model that this server runs itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Logged {
    /// It is not such a model.
    #[default]
    Elsewhere,
    /// No signature.
    Bare,
    /// Tensors.
    Tensors,
    /// The names of columns.
    Table(Vec<String>),
}

/// What is known about a model's rows without running it, and how often it may be run to find out more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trials {
    /// How often it may be run with generated inputs while it is loaded.
    pub runs: TrialRuns,
    /// Whether its rows are independent because of the way it is called, so that no trial is needed.
    pub independent: bool,
}

/// How often a model may be run with generated inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrialRuns {
    /// As often as useful: nobody notices the runs.
    #[default]
    Many,
    /// A few times: each is a call of user code.
    Few,
    /// Never: its author forbids it.
    None,
}

/// One run.
#[derive(Debug)]
pub struct Call<'c> {
    /// One tensor for each input of the signature, in its order.
    pub inputs: &'c [Tensor],
    /// The positions, in the signature, of the requested outputs.
    pub outputs: &'c [usize],
    /// The parameters of the request that the server does not use, for models that read them.
    pub parameters: &'c Parameters,
    /// The parameters of its inputs, for models that read them.
    pub input_parameters: &'c InputParameters,
    /// Signals that the client has disconnected.
    pub cancel: &'c Cancel,
    /// The purpose of the run.
    pub purpose: Purpose,
}

/// The purpose of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client waits for the answer.
    Request,
    /// The inputs were written by a person: a warm-up, a golden example. No client waits.
    Example,
    /// The inputs are generated, and a failure is not reported.
    Trial,
}

/// Why a run gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The client must change the inputs.
    #[error("{0}")]
    Rejected(String),
    /// The client disconnected.
    #[error("the run was cancelled")]
    Cancelled,
    /// The runtime of the model is being restarted; a later retry may work.
    #[error("{0}")]
    Unavailable(String),
    /// Other runs hold the memory that this one needs; later it may work.
    #[error("{0}")]
    MemoryFull(String),
    /// The model failed.
    #[error("{0}")]
    Failed(String),
}

/// Receives the answers of a model.
pub trait Sink {
    /// Receives the requested outputs, in the requested order. `false`: nobody listens any more.
    fn send(&mut self, outputs: Vec<Tensor>) -> bool;
}

/// A loaded model.
pub trait ModelRuntime: Send + 'static {
    /// Its inputs and outputs.
    fn signature(&self) -> &Signature;

    /// Whether it can run now, for other threads to check.
    fn up(&self) -> Up {
        Up::always()
    }

    /// Allows requests to leave out the inputs at these positions. `false`: the model needs all of them.
    fn allow_absent(&mut self, places: &[usize]) -> bool {
        places.is_empty()
    }

    /// What is known about its rows, and how often it may be tried.
    fn trials(&self) -> Trials {
        Trials::default()
    }

    /// The metrics that the model defines itself.
    fn metrics(&self) -> Option<Arc<Own>> {
        None
    }

    /// The guard that checks inputs before a run, if there is one.
    fn screen(&self) -> Option<Arc<dyn Screen>> {
        None
    }

    /// Facts about how it is served.
    fn note(&self) -> Option<&str> {
        None
    }

    /// Runs it. Blocks for the whole inference.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError>;
}

/// Replaces an input that a request left out.
pub(crate) fn absent(input: &TensorMetadata) -> Tensor {
    Tensor { name: input.name.clone(), shape: Vec::new(), data: Data::Json(Json::default()) }
}

/// Whether a request left an input out.
pub(crate) fn is_absent(input: &Tensor) -> bool {
    matches!(&input.data, Data::Json(json) if json.is_empty())
}

/// Whether an input is unusual for a runtime: it has no elements, or is a single whole number of 0 or less, where a
/// size, a step or a count may be expected.
pub(crate) fn is_unusual(input: &Tensor) -> bool {
    input.data.is_empty() || is_no_count(input)
}

/// Whether an input is a single whole number of 0 or less.
pub(crate) fn is_no_count(input: &Tensor) -> bool {
    input.shape.is_empty() && begins_without_count(&input.data)
}

/// Whether the first element is a whole number of 0 or less.
pub(crate) fn begins_without_count(data: &Data) -> bool {
    match data {
        Data::Int8(number) => number.first().is_some_and(|number| *number <= 0),
        Data::Int16(number) => number.first().is_some_and(|number| *number <= 0),
        Data::Int32(number) => number.first().is_some_and(|number| *number <= 0),
        Data::Int64(number) => number.first().is_some_and(|number| *number <= 0),
        Data::Uint8(number) => number.first() == Some(&0),
        Data::Uint16(number) => number.first() == Some(&0),
        Data::Uint32(number) => number.first() == Some(&0),
        Data::Uint64(number) => number.first() == Some(&0),
        Data::Bool(_)
        | Data::Fp16(_)
        | Data::Bf16(_)
        | Data::Fp32(_)
        | Data::Fp64(_)
        | Data::Bytes(_)
        | Data::Json(_) => false,
    }
}

/// Decides whether a runtime survives unusual inputs.
pub trait Screen: std::fmt::Debug + Send + Sync {
    /// Whether any of these is unusual.
    fn concerns(&self, inputs: &[Tensor]) -> bool {
        inputs.iter().any(is_unusual)
    }

    /// The known result; `None`: it must be tried.
    fn known(&self, inputs: &[Tensor]) -> Option<Result<(), RuntimeError>>;

    /// Tries it, in another process and in turn.
    fn try_out(self: Arc<Self>, inputs: Vec<Tensor>) -> tokio::sync::oneshot::Receiver<Result<(), RuntimeError>>;
}

/// Whether a runtime can run now. Clones belong to the same runtime.
#[derive(Clone, Debug)]
pub struct Up(Option<Arc<AtomicBool>>);

impl Up {
    /// For a runtime that can always run.
    #[must_use]
    pub fn always() -> Self {
        Self(None)
    }

    /// For a runtime that does not exist yet.
    pub(crate) fn down() -> Self {
        Self(Some(Arc::default()))
    }

    /// Sets the state.
    pub(crate) fn set(&self, up: bool) {
        if let Some(known) = &self.0 {
            known.store(up, Ordering::Release);
        }
    }

    /// Whether a run that another runtime of the same model could not begin may be begun here. Where runtimes do not come
    /// and go, another one would only say the same.
    pub(crate) fn takes_over(&self) -> bool {
        self.0.is_some() && self.is_up()
    }

    /// How it is.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.as_ref().is_none_or(|up| up.load(Ordering::Acquire))
    }
}

/// Keeps the last answer: for callers that want one answer.
#[derive(Debug, Default)]
pub(crate) struct Last(pub(crate) Option<Vec<Tensor>>);

impl Sink for Last {
    fn send(&mut self, outputs: Vec<Tensor>) -> bool {
        self.0 = Some(outputs);
        true
    }
}

type Hook = Box<dyn Fn() + Send>;

/// Signals that nobody waits for a run any more. Clones belong to the same run.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Cancelled>);

#[derive(Default)]
struct Cancelled {
    flag: AtomicBool,
    hook: Mutex<Option<Hook>>,
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

impl Cancel {
    /// Cancels; calls the hook if a run has set one.
    pub fn cancel(&self) {
        let hook = self.0.hook.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.flag.store(true, Ordering::Release);
        if let Some(hook) = hook.as_ref() {
            hook();
        }
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.flag.load(Ordering::Acquire)
    }

    /// Whether both are of the same run.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Runs `work`; `hook` is called if this is cancelled during that time, and never after this returns.
    pub fn watch<T>(&self, hook: impl Fn() + Send + 'static, work: impl FnOnce() -> T) -> T {
        *self.0.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
        if self.is_cancelled() {
            // Cancelled before the hook was set.
            self.cancel();
        }
        let result = work();
        *self.0.hook.lock().unwrap_or_else(PoisonError::into_inner) = None;
        result
    }
}
