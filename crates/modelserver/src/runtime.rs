//! The seam to whatever runs a model.
//!
//! A runtime is synchronous and belongs to one thread at a time. It is handed tensors that fit its
//! signature, in the signature's order; what it makes goes to a [`Sink`], once for a plain model and as often
//! as it likes for one that streams; a [`Cancel`] tells it that nobody waits any more. It knows nothing of
//! requests: where several of them are run as one, their rows were joined before and are parted after.

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
    /// What runs it, as the protocol names it.
    pub platform: &'static str,
    /// Its inputs, in its own order.
    pub inputs: Vec<TensorMetadata>,
    /// Inputs for which the model has values of its own, unless a request sends others. Those that are sent come to the
    /// runtime behind its inputs.
    pub defaults: Vec<TensorMetadata>,
    /// The places of the inputs, `defaults` counted behind them, of which the model does not say how many dimensions they
    /// have. All others with an empty shape are scalars.
    pub unranked: Vec<usize>,
    /// The places of the inputs that a request may leave out. Such a one comes to a table of MLflow's without rows, and is
    /// [`absent`] to others.
    pub optional: Vec<usize>,
    /// The places of the inputs that hold bytes, which MLflow's clients write in base64.
    pub base64: Vec<usize>,
    /// The places of the inputs of `BYTES` whose elements are JSON. In V1 they are values as others are.
    pub json: Vec<usize>,
    /// Whether the model checks the JSON of a body itself, so that no tensors say what came.
    pub plain: bool,
    /// Whether the model reads the parameters of its inputs.
    pub input_parameters: bool,
    /// Its outputs, in its own order.
    pub outputs: Vec<TensorMetadata>,
    /// What MLflow's signature says of a model that this server runs itself.
    pub logged: Logged,
    /// Whether the first dimension of every tensor counts rows that do not influence one another, so that
    /// the rows of several requests may be run as one.
    pub rows: bool,
    /// Whether one run may send more than one answer.
    pub streams: bool,
}

impl Signature {
    /// How a float that is missing is answered in JSON: for a model that Python runs as null, as every other missing value.
    pub(crate) fn nan(&self) -> Nan {
        if self.platform == MLFLOW || self.platform.starts_with("python") { Nan::Null } else { Nan::Word }
    }
}

/// What was logged with a model of MLflow's that this server runs itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Logged {
    /// It is no such model.
    #[default]
    Elsewhere,
    /// No signature.
    Bare,
    /// Tensors.
    Tensors,
    /// The names of columns.
    Table(Vec<String>),
}

/// What is known of a model's rows without running it, and how often it may be run to know more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trials {
    /// How often it may be run with made-up inputs while it is loaded.
    pub runs: TrialRuns,
    /// Whether its rows are independent by the way it is called, so that nothing need be tried.
    pub independent: bool,
}

/// How often a model may be run with made-up inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrialRuns {
    /// As often as shows something: nobody notices.
    #[default]
    Many,
    /// A few times: each is a call of somebody's code.
    Few,
    /// Never: its author says so.
    None,
}

/// One run.
#[derive(Debug)]
pub struct Call<'c> {
    /// One tensor for each input of the signature, in its order.
    pub inputs: &'c [Tensor],
    /// The places, in the signature, of the outputs that are wanted.
    pub outputs: &'c [usize],
    /// The request's own extras that mean nothing to the server, for models that read them.
    pub parameters: &'c Parameters,
    /// Those of its inputs, for models that read them.
    pub input_parameters: &'c InputParameters,
    /// Says when the caller has left.
    pub cancel: &'c Cancel,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A caller waits for the answer.
    Request,
    /// Somebody wrote the inputs down: a warm-up, a golden example. No caller waits.
    Example,
    /// The inputs are made up, and a failure is nobody's business.
    Trial,
}

/// Why a run gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The caller must change the inputs.
    #[error("{0}")]
    Rejected(String),
    /// The caller left.
    #[error("the run was cancelled")]
    Cancelled,
    /// What runs the model is being restarted; later it may work.
    #[error("{0}")]
    Unavailable(String),
    /// Other runs hold the memory that this one needs; later it may work.
    #[error("{0}")]
    MemoryFull(String),
    /// The model failed.
    #[error("{0}")]
    Failed(String),
}

/// Takes what a model makes.
pub trait Sink {
    /// Takes the wanted outputs, in the order wanted. `false`: nobody listens any more.
    fn send(&mut self, outputs: Vec<Tensor>) -> bool;
}

/// A model, loaded.
pub trait ModelRuntime: Send + 'static {
    /// What it wants and answers.
    fn signature(&self) -> &Signature;

    /// Whether it can be asked now, to be looked at from elsewhere.
    fn up(&self) -> Up {
        Up::always()
    }

    /// Lets requests leave out these inputs, by their places. `false`: the model needs all of them.
    fn allow_absent(&mut self, places: &[usize]) -> bool {
        places.is_empty()
    }

    /// What is known of its rows, and how often it may be tried.
    fn trials(&self) -> Trials {
        Trials::default()
    }

    /// The metrics that the model declares itself.
    fn metrics(&self) -> Option<Arc<Own>> {
        None
    }

    /// What says of inputs beforehand whether it can be run with them, if anything does.
    fn screen(&self) -> Option<Arc<dyn Screen>> {
        None
    }

    /// What is to be known of how it is served.
    fn note(&self) -> Option<&str> {
        None
    }

    /// Runs it. Blocks for the whole inference.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError>;
}

/// What stands in the place of an input that a request left out.
pub(crate) fn absent(input: &TensorMetadata) -> Tensor {
    Tensor { name: input.name.clone(), shape: Vec::new(), data: Data::Json(Json::default()) }
}

/// Whether a request left an input out.
pub(crate) fn is_absent(input: &Tensor) -> bool {
    matches!(&input.data, Data::Json(json) if json.is_empty())
}

/// Whether a runtime may not be made for an input: one without elements, or a whole number by itself that is 0 or less,
/// where a size, a step or a count is expected.
pub(crate) fn is_unusual(input: &Tensor) -> bool {
    input.data.is_empty() || is_no_count(input)
}

/// Whether an input is a whole number by itself, and 0 or less.
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

/// Says of unusual inputs whether a runtime survives them.
pub trait Screen: std::fmt::Debug + Send + Sync {
    /// Whether any of these is unusual.
    fn concerns(&self, inputs: &[Tensor]) -> bool {
        inputs.iter().any(is_unusual)
    }

    /// What is known; `None`: it has to be tried.
    fn known(&self, inputs: &[Tensor]) -> Option<Result<(), RuntimeError>>;

    /// Tries it, elsewhere and in its turn.
    fn try_out(self: Arc<Self>, inputs: Vec<Tensor>) -> tokio::sync::oneshot::Receiver<Result<(), RuntimeError>>;
}

/// Whether a runtime can be asked. Clones are the same runtime's.
#[derive(Clone, Debug)]
pub struct Up(Option<Arc<AtomicBool>>);

impl Up {
    /// Of a runtime that has nothing that may be missing.
    #[must_use]
    pub fn always() -> Self {
        Self(None)
    }

    /// Of a runtime that is not there yet.
    pub(crate) fn down() -> Self {
        Self(Some(Arc::default()))
    }

    /// Says how it is from now on.
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

/// Keeps the last thing sent: for callers that want one answer.
#[derive(Debug, Default)]
pub(crate) struct Last(pub(crate) Option<Vec<Tensor>>);

impl Sink for Last {
    fn send(&mut self, outputs: Vec<Tensor>) -> bool {
        self.0 = Some(outputs);
        true
    }
}

type Hook = Box<dyn Fn() + Send>;

/// Says that nobody waits for a run any more. Clones are the same run.
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

    /// Runs `work`; `hook` is called if this is cancelled meanwhile, and never after this returns.
    pub fn watch<T>(&self, hook: impl Fn() + Send + 'static, work: impl FnOnce() -> T) -> T {
        *self.0.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
        if self.is_cancelled() {
            // Cancelled before the hook was there.
            self.cancel();
        }
        let result = work();
        *self.0.hook.lock().unwrap_or_else(PoisonError::into_inner) = None;
        result
    }
}
