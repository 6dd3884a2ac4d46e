//! A served model: its queue, its threads, and its async interface.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use inference::{InputParameters, ModelMetadata, Parameter, Parameters, Request, Tensor};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    error::InferError,
    machine::placement::Placement,
    metrics::ModelMetrics,
    metrics::statistics::Statistics,
    mlflow::{answer, document, table},
    run::{
        batch::{Answer, Answered, Job, join, run::Worker, size::Sizes},
        cache::{self, Cache},
        caller::Caller,
        probe::Probe,
        queue::{Bell, Queue},
        validate,
    },
    runtime::{Cancel, ModelRuntime, Screen, Signature, Up},
    settings::ModelSettings,
};

/// How many answers a model may stream ahead of its client.
const STREAMED_AHEAD: usize = 16;

/// Request parameters for the server, not for the model.
const OURS: [&str; 4] = ["priority", "timeout", "binary_data_output", "triton_enable_empty_final_response"];

/// One loaded version of a model.
#[derive(Debug)]
pub(crate) struct Model {
    /// Its own name; requests may use others.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) signature: Signature,
    pub(crate) metrics: Arc<ModelMetrics>,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) settings: ModelSettings,
    cache: Option<Cache>,
    queue: Arc<Queue>,
    /// Whether its instances can run.
    up: Arc<[Up]>,
    /// The guard that decides whether it can run with unusual inputs.
    screen: Option<Arc<dyn Screen>>,
    /// Facts about how it is served.
    pub(crate) note: String,
    threads: Vec<JoinHandle<()>>,
    /// The positions of the outputs that are returned without being named.
    outputs: Arc<[usize]>,
    /// The positions of its intermediate features.
    features: Arc<[usize]>,
    /// Whether it was logged that columns of requests are ignored.
    said_ignored: AtomicBool,
}

/// The answers to one request to a streaming model.
pub(crate) struct Answers {
    answers: mpsc::Receiver<Answered>,
    waiting: Waiting,
    /// The deadline of the next answer. Each has `time` from the previous one.
    deadline: Option<Instant>,
    /// The deadline of the last one, if the client set a timeout.
    end: Option<Instant>,
    time: Duration,
    left: Left,
}

impl Answers {
    /// The next answer; `None` after the last. Dropping this ends the run.
    pub(crate) async fn next(&mut self) -> Option<Answered> {
        let next = *self.deadline.get_or_insert_with(|| Instant::now() + self.time);
        let deadline = self.end.map_or(next, |end| end.min(next));
        match tokio::time::timeout_at(deadline.into(), self.answers.recv()).await {
            Ok(Some(answer)) => {
                self.deadline = None;
                if answer.is_err() {
                    self.end();
                }
                Some(answer.map(|mut outputs| {
                    answer::taken(&mut outputs);
                    outputs
                }))
            }
            Ok(None) => {
                self.waiting.answered = true;
                self.end();
                None
            }
            Err(_) => {
                self.end();
                Some(Err(InferError::TimedOut(self.time.as_millis())))
            }
        }
    }

    /// The client gets no more answers, and has not disconnected.
    pub(crate) fn end(&mut self) {
        self.left.0 = None;
    }
}

/// Counts a request whose client disconnected: the future for its answer was dropped.
struct Left(Option<Arc<ModelMetrics>>);

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(metrics) = &self.0 {
            metrics.refused_as("client_left");
        }
    }
}

/// Ends the run when its client stops waiting, for any reason.
struct Waiting {
    cancel: Cancel,
    queue: Arc<Queue>,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.queue.leave(&self.cancel);
        }
    }
}

/// A request that fits the model.
struct Prepared {
    inputs: Vec<Tensor>,
    outputs: Arc<[usize]>,
    parameters: Parameters,
    input_parameters: InputParameters,
    level: u32,
}

impl Model {
    /// Starts a thread for each of `runtimes`, which are copies of one model.
    pub(crate) fn start(
        name: String,
        version: String,
        mut signature: Signature,
        runtimes: Vec<Box<dyn ModelRuntime>>,
        probe: Probe,
        metrics: ModelMetrics,
        settings: ModelSettings,
    ) -> std::io::Result<Self> {
        signature.rows = probe.rows;
        let (metrics, statistics) = (Arc::new(metrics), Arc::new(Statistics::default()));
        let sizes = Sizes::new(&settings, signature.rows && !signature.streams, &probe.costs);
        let queue = Queue::new(settings.queue_limit, settings.max_queue_delay, sizes, Arc::clone(&metrics));
        let queue = Arc::new(queue);
        let placement = Placement::of_this_machine();
        let mut threads = Vec::with_capacity(runtimes.len());
        let screen = runtimes.first().and_then(|runtime| runtime.screen());
        let note = runtimes.first().and_then(|runtime| runtime.note()).unwrap_or_default().to_owned();
        let up: Arc<[Up]> = runtimes.iter().map(|runtime| runtime.up()).collect();
        for (instance, runtime) in runtimes.into_iter().enumerate() {
            let worker = Worker {
                name: name.clone(),
                up: runtime.up(),
                all: Arc::clone(&up),
                runtime,
                queue: Arc::clone(&queue),
                statistics: Arc::clone(&statistics),
                metrics: Arc::clone(&metrics),
                handle: Handle::try_current().ok(),
                rows: signature.rows,
            };
            let cpus = placement.of_instance(instance);
            let work = move || {
                if let Some(cpus) = cpus {
                    cpus.pin_this_thread();
                }
                worker.work();
            };
            threads.push(thread::Builder::new().name("model".to_owned()).spawn(work)?);
        }
        let cached = settings.response_cache_bytes > 0 && !signature.streams;
        let cache = cached.then(|| Cache::new(settings.response_cache_bytes));
        let features: Arc<[usize]> = validate::features(&signature).into();
        let outputs = (0..signature.outputs.len()).filter(|place| !features.contains(place)).collect();
        Ok(Self {
            name,
            version,
            signature,
            metrics,
            statistics,
            settings,
            cache,
            queue,
            up,
            screen,
            note,
            threads,
            outputs,
            features,
            said_ignored: AtomicBool::new(false),
        })
    }

    /// Accepts no more requests, and ends its threads after the waiting ones.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Whether any of its instances can run.
    pub(crate) fn is_up(&self) -> bool {
        self.up.iter().any(Up::is_up)
    }

    /// Whether its threads have ended, and the runtime is freed.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Its inputs and outputs, with the name from the request.
    pub(crate) fn metadata(&self, name: &str, versions: Vec<String>) -> ModelMetadata {
        ModelMetadata {
            name: name.to_owned(),
            versions,
            platform: self.signature.platform.to_owned(),
            inputs: self.signature.inputs.clone(),
            outputs: self.signature.outputs.clone(),
        }
    }

    /// Predicts.
    pub(crate) async fn infer(&self, request: Request, caller: Caller) -> Result<Vec<Tensor>, InferError> {
        Ok(self.predict(request, caller).await?.0)
    }

    /// The same, with the answer of V1 if that is not just the tensors. Counts and times the answer, including errors.
    pub(crate) async fn predict(
        &self,
        request: Request,
        caller: Caller,
    ) -> Result<(Vec<Tensor>, Option<answer::V1>), InferError> {
        let began = Instant::now();
        self.statistics.touched();
        let mut left = Left(Some(Arc::clone(&self.metrics)));
        let result = self.answered(request, caller, began).await;
        left.0 = None;
        let took = began.elapsed();
        match &result {
            Ok(_) => {
                self.statistics.success.add(took);
                self.metrics.predicted(took);
            }
            Err(error) => {
                self.statistics.fail.add(took);
                self.metrics.refused(error);
            }
        }
        result
    }

    async fn answered(
        &self,
        request: Request,
        caller: Caller,
        began: Instant,
    ) -> Result<(Vec<Tensor>, Option<answer::V1>), InferError> {
        let named = if document::takes(&self.signature) { request.outputs.clone() } else { Vec::new() };
        let mut outputs = match &self.cache {
            Some(cache) => self.run_once(cache, request, caller, began).await?,
            None => self.run(request, caller, began).await?,
        };
        let (v1, ignored) = answer::taken(&mut outputs);
        self.ignored(&ignored);
        if named.is_empty() {
            return Ok((outputs, v1));
        }
        Ok((answer::chosen(outputs, &named)?, v1))
    }

    /// Counts columns of a request that the model does not have, and logs them once.
    fn ignored(&self, columns: &[String]) {
        if columns.is_empty() {
            return;
        }
        self.metrics.ignored_columns(columns.len());
        if !self.said_ignored.swap(true, Ordering::Relaxed) {
            let names: Vec<_> = columns.iter().take(10).map(String::as_str).collect();
            let names = names.join(", ");
            tracing::warn!(
                model = self.name,
                columns = names,
                "requests have columns that the model does not have; they are ignored and counted in \
                 model_ignored_columns_total"
            );
        }
    }

    /// Predicts with a model that may return several answers.
    pub(crate) async fn stream(&self, request: Request, caller: Caller) -> Result<Answers, InferError> {
        let arrived = Instant::now();
        self.statistics.touched();
        let time = self.time_for(&request)?;
        let own = request.parameters.get("timeout").and_then(Parameter::as_u64).is_some_and(|micros| micros > 0);
        let (answer, answers) = mpsc::channel(STREAMED_AHEAD);
        let prepared = self.prepare(request)?;
        self.screened(&prepared, arrived + time).await?;
        let (waiting, _bell) = self.enqueue(prepared, caller, Answer::Each(answer), arrived, time)?;
        let left = Left(Some(Arc::clone(&self.metrics)));
        let deadline = arrived + time;
        Ok(Answers { answers, waiting, deadline: Some(deadline), end: own.then_some(deadline), time, left })
    }

    /// Runs it if the cache does not have the answer and no equal request is running.
    async fn run_once(
        &self,
        cache: &Cache,
        request: Request,
        caller: Caller,
        began: Instant,
    ) -> Result<Vec<Tensor>, InferError> {
        let time = self.time_for(&request)?;
        let key = cache::Key::of(&request);
        let looked_up = began.elapsed();
        let answer = cache.answer(key, self.run(request, caller, began));
        let answer = tokio::time::timeout_at((began + time).into(), answer).await;
        let (outputs, from) = answer.map_err(|_| InferError::TimedOut(time.as_millis()))??;
        match from {
            cache::From::Cache => self.statistics.cache_hit.add(began.elapsed()),
            cache::From::Run => self.statistics.cache_miss.add(looked_up),
        }
        self.metrics.cached(from == cache::From::Cache);
        Ok(outputs)
    }

    async fn run(&self, request: Request, caller: Caller, began: Instant) -> Result<Vec<Tensor>, InferError> {
        let time = self.time_for(&request)?;
        let (answer, answered) = oneshot::channel();
        let prepared = self.prepare(request)?;
        self.screened(&prepared, began + time).await?;
        let (mut waiting, bell) = self.enqueue(prepared, caller, Answer::One(answer), began, time)?;
        if bell.will_ring() {
            // Requests that are already here join the batch.
            tokio::task::yield_now().await;
        }
        drop(bell);
        let result = tokio::time::timeout_at((began + time).into(), answered).await;
        waiting.answered = result.is_ok();
        match result {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(InferError::Failed("the model's thread ended".to_owned())),
            Err(_) => Err(InferError::TimedOut(time.as_millis())),
        }
    }

    /// Checks a request.
    fn prepare(&self, request: Request) -> Result<Prepared, InferError> {
        let mut parameters = request.parameters;
        if let Some(name) = parameters.keys().find(|name| name.starts_with("sequence_")) {
            // Served one by one, the parts of a sequence would silently get wrong answers.
            return Err(InferError::Unsupported(format!("`{name}`: models with a memory of sequences are not served")));
        }
        let as_it_came = document::takes(&self.signature);
        let mut outputs =
            if request.outputs.is_empty() || (as_it_came && !answer::knows(&self.signature, &request.outputs)) {
                Arc::clone(&self.outputs)
            } else {
                validate::choose_outputs(&self.signature, &request.outputs)?.into()
            };
        if !self.features.is_empty() && parameters.remove("features").is_some_and(|word| word.as_bool() == Some(true)) {
            let more = self.features.iter().filter(|place| !outputs.contains(place));
            outputs = outputs.iter().chain(more).copied().collect();
        }
        let inputs = self.inputs(request.inputs, as_it_came)?;
        if table::is_table(&self.signature) && document::read(&inputs).is_none() {
            validate::same_rows(&self.signature, &inputs)?;
        }
        let level = self.level(&parameters);
        parameters.retain(|name, _| !OURS.contains(&name.as_str()));
        let input_parameters =
            if self.signature.input_parameters { request.input_parameters } else { InputParameters::new() };
        Ok(Prepared { inputs, outputs, parameters, input_parameters, level })
    }

    /// Refuses inputs that would crash the server.
    async fn screened(&self, request: &Prepared, deadline: Instant) -> Result<(), InferError> {
        let Some(screen) = &self.screen else { return Ok(()) };
        if !screen.concerns(&request.inputs) {
            return Ok(());
        }
        let known = match screen.known(&request.inputs) {
            Some(known) => known,
            None => {
                let tried = Arc::clone(screen).try_out(request.inputs.clone());
                match tokio::time::timeout_at(deadline.into(), tried).await {
                    Ok(Ok(tried)) => tried,
                    // The thread of the model reports the reason.
                    Ok(Err(_)) => Ok(()),
                    Err(_) => {
                        let words = "inputs like these are tried elsewhere first, which took too long: try again";
                        return Err(InferError::NotReady(words.to_owned()));
                    }
                }
            }
        };
        known.map_err(InferError::from)
    }

    /// Puts a request into the queue.
    fn enqueue(
        &self,
        Prepared { inputs, outputs, parameters, input_parameters, level }: Prepared,
        caller: Caller,
        answer: Answer,
        arrived: Instant,
        time: Duration,
    ) -> Result<(Waiting, Bell<'_>), InferError> {
        // A request that overrides a default value of the model cannot be batched.
        let joins = self.signature.rows && !self.signature.streams && inputs.len() == self.signature.inputs.len();
        let rows = if joins { join::rows_of(&inputs) } else { None };
        let cancel = Cancel::default();
        let job =
            Job { inputs, outputs, parameters, input_parameters, rows, cancel: cancel.clone(), answer, arrived, time };
        let full = |_| InferError::QueueFull { model: self.name.clone(), limit: self.settings.queue_limit };
        let bell = self.queue.push(level, caller, job).map_err(full)?;
        Ok((Waiting { cancel, queue: Arc::clone(&self.queue), answered: false }, bell))
    }

    /// The inputs in the order of the signature, or the unchanged request.
    fn inputs(&self, mut inputs: Vec<Tensor>, as_it_came: bool) -> Result<Vec<Tensor>, InferError> {
        if as_it_came {
            if document::read(&inputs).is_some() {
                return Ok(inputs);
            }
            if self.signature.inputs.is_empty() {
                return Ok(vec![document::of_tensors(&inputs)?]);
            }
            self.ignored(&table::without_extra(&self.signature, &mut inputs));
        }
        validate::order_inputs(&self.signature, inputs)
    }

    /// The priority of a request: 1 is served first. As in Triton, an invalid priority becomes the default one, which
    /// is the last unless the settings say otherwise.
    fn level(&self, parameters: &Parameters) -> u32 {
        let levels = self.settings.priority_levels;
        if levels == 0 {
            return 0;
        }
        let known = |level: &u32| (1..=levels).contains(level);
        let own = parameters.get("priority").and_then(Parameter::as_u64).and_then(|level| level.try_into().ok());
        own.filter(known).or(Some(self.settings.default_priority).filter(known)).unwrap_or(levels)
    }

    /// The request's own `timeout` (microseconds) can only shorten that of the server.
    fn time_for(&self, request: &Request) -> Result<Duration, InferError> {
        let Some(given) = request.parameters.get("timeout") else { return Ok(self.settings.timeout) };
        match given.as_u64() {
            // Triton's value for no timeout.
            Some(0) => Ok(self.settings.timeout),
            Some(micros) => Ok(Duration::from_micros(micros).min(self.settings.timeout)),
            None => {
                Err(InferError::Invalid("the parameter `timeout` is not a whole number of microseconds".to_owned()))
            }
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.queue.close();
    }
}
