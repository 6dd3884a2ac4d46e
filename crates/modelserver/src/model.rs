//! A served model: a queue, the threads that work it off, and the async door before them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use api::inference::{ModelMetadata, Parameters, Request, Tensor};
use tokio::sync::{mpsc, oneshot};

use crate::{
    cache::{self, Cache},
    caller::Caller,
    error::InferError,
    metrics::ModelMetrics,
    probe::Probe,
    queue::Queue,
    runtime::{Call, Cancel, Last, ModelRuntime, RuntimeError, Signature, Sink},
    settings::ModelSettings,
    statistics::Statistics,
    validate,
};

/// Answers that a model may stream ahead of its caller.
const STREAMED_AHEAD: usize = 16;

/// One version of a model, loaded.
#[derive(Debug)]
pub(crate) struct Model {
    /// Its own name; it may be asked for by others.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) signature: Signature,
    pub(crate) metrics: ModelMetrics,
    pub(crate) statistics: Statistics,
    cache: Option<Cache>,
    queue: Arc<Queue<Job>>,
    threads: Vec<JoinHandle<()>>,
    pub(crate) settings: ModelSettings,
}

/// One request on its way through the queue.
#[derive(Debug)]
struct Job {
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    cancel: Cancel,
    parameters: Parameters,
    answer: Answer,
}

/// Where the answers of a job go.
#[derive(Debug)]
enum Answer {
    /// The last one only.
    One(oneshot::Sender<Result<Vec<Tensor>, RuntimeError>>),
    /// Each as it comes.
    Each(mpsc::Sender<Result<Vec<Tensor>, RuntimeError>>),
}

/// The answers of one request to a model that streams.
pub(crate) struct Answers {
    answers: mpsc::Receiver<Result<Vec<Tensor>, RuntimeError>>,
    waiting: Waiting,
    deadline: Instant,
    time: Duration,
}

impl Answers {
    /// The next answer; `None` after the last. Dropping this ends the run.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<Tensor>, InferError>> {
        match tokio::time::timeout_at(self.deadline.into(), self.answers.recv()).await {
            Ok(Some(answer)) => Some(answer.map_err(InferError::from)),
            Ok(None) => {
                self.waiting.answered = true;
                None
            }
            Err(_) => Some(Err(InferError::TimedOut(self.time.as_millis()))),
        }
    }
}

/// Ends the run when its caller stops waiting, for whatever reason.
struct Waiting {
    cancel: Cancel,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.cancel.cancel();
        }
    }
}

impl Model {
    /// Starts a thread for each of `runtimes`, which are copies of one model.
    pub(crate) fn start(
        name: String,
        version: String,
        runtimes: Vec<Box<dyn ModelRuntime>>,
        probe: Probe,
        metrics: ModelMetrics,
        settings: ModelSettings,
    ) -> std::io::Result<Self> {
        let signature = runtimes.first().map(|runtime| runtime.signature().clone());
        let mut signature = signature.ok_or_else(|| std::io::Error::other("a model without instances"))?;
        signature.rows = probe.rows;
        let queue = Arc::new(Queue::new(settings.queue_limit));
        let mut threads = Vec::with_capacity(runtimes.len());
        for runtime in runtimes {
            let queue = Arc::clone(&queue);
            threads.push(thread::Builder::new().name("model".to_owned()).spawn(move || work(runtime, &queue))?);
        }
        let cached = settings.response_cache_bytes > 0 && !signature.streams;
        let cache = cached.then(|| Cache::new(settings.response_cache_bytes));
        let statistics = Statistics::default();
        Ok(Self { name, version, signature, metrics, statistics, cache, queue, threads, settings })
    }

    /// Takes no more requests, and ends its threads after what waits.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Whether its threads have ended, and with them everything of the runtime's.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// What it wants and answers, under the name that it was asked by.
    pub(crate) fn metadata(&self, name: &str, versions: Vec<String>) -> ModelMetadata {
        ModelMetadata {
            name: name.to_owned(),
            versions,
            platform: self.signature.platform.to_owned(),
            inputs: self.signature.inputs.clone(),
            outputs: self.signature.outputs.clone(),
        }
    }

    /// Predicts. Counts and times the answer, whatever it is.
    pub(crate) async fn infer(&self, request: Request, caller: Caller) -> Result<Vec<Tensor>, InferError> {
        let began = Instant::now();
        let result = match &self.cache {
            Some(cache) => self.run_once(cache, request, caller, began).await,
            None => self.run(request, caller, began).await,
        };
        match &result {
            Ok(_) => self.metrics.predicted(began.elapsed()),
            Err(error) => self.metrics.refused(error),
        }
        result
    }

    /// Predicts with a model that may answer more than once.
    pub(crate) fn stream(&self, request: Request, _caller: Caller) -> Result<Answers, InferError> {
        let time = self.time_for(&request);
        let (answer, answers) = mpsc::channel(STREAMED_AHEAD);
        let cancel = self.enqueue(request, Answer::Each(answer))?;
        let waiting = Waiting { cancel, answered: false };
        Ok(Answers { answers, waiting, deadline: Instant::now() + time, time })
    }

    /// Runs it if the cache does not have the answer and no equal request is being run.
    async fn run_once(
        &self,
        cache: &Cache,
        request: Request,
        caller: Caller,
        began: Instant,
    ) -> Result<Vec<Tensor>, InferError> {
        let time = self.time_for(&request);
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

    async fn run(&self, request: Request, _caller: Caller, began: Instant) -> Result<Vec<Tensor>, InferError> {
        let time = self.time_for(&request);
        let (answer, answered) = oneshot::channel();
        let cancel = self.enqueue(request, Answer::One(answer))?;
        let mut waiting = Waiting { cancel, answered: false };
        let result = tokio::time::timeout_at((began + time).into(), answered).await;
        waiting.answered = result.is_ok();
        match result {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(_)) => Err(InferError::Failed("the model's thread ended".to_owned())),
            Err(_) => Err(InferError::TimedOut(time.as_millis())),
        }
    }

    /// Checks a request and puts it into the queue.
    fn enqueue(&self, request: Request, answer: Answer) -> Result<Cancel, InferError> {
        if let Some(name) = request.parameters.keys().find(|name| name.starts_with("sequence_")) {
            // Served one by one, the parts of a sequence would get wrong answers without a word.
            return Err(InferError::Unsupported(format!("`{name}`: models with a memory of sequences are not served")));
        }
        let outputs = validate::choose_outputs(&self.signature, &request.outputs)?;
        let inputs = validate::order_inputs(&self.signature, request.inputs)?;
        let cancel = Cancel::default();
        let job = Job { inputs, outputs, parameters: request.parameters, cancel: cancel.clone(), answer };
        if self.queue.push(job).is_err() {
            return Err(InferError::QueueFull { model: self.name.clone(), limit: self.settings.queue_limit });
        }
        Ok(cancel)
    }

    /// The request's own `timeout` (microseconds) can only shorten the server's.
    fn time_for(&self, request: &Request) -> Duration {
        match request.parameters.get("timeout").and_then(api::inference::Parameter::as_u64) {
            Some(micros) if micros > 0 => Duration::from_micros(micros).min(self.settings.timeout),
            _ => self.settings.timeout,
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A model's thread: one job after the other until the queue is closed.
fn work(mut runtime: Box<dyn ModelRuntime>, queue: &Queue<Job>) {
    while let Some(job) = queue.take() {
        let Job { inputs, outputs, parameters, cancel, answer } = job;
        let call = Call { inputs: &inputs, outputs: &outputs, parameters: &parameters, cancel: &cancel };
        match answer {
            // Its caller left while it waited.
            Answer::One(answer) if answer.is_closed() => {}
            Answer::One(answer) => {
                let mut last = Last::default();
                let made = run(runtime.as_mut(), call, &mut last);
                let made =
                    made.and_then(|()| last.0.ok_or_else(|| RuntimeError::Failed("the model made nothing".to_owned())));
                // The caller may have left meanwhile.
                let _ = answer.send(made);
            }
            Answer::Each(answer) => {
                let mut sink = Streamed(answer);
                if let Err(error) = run(runtime.as_mut(), call, &mut sink) {
                    let _ = sink.0.blocking_send(Err(error));
                }
            }
        }
    }
}

/// Hands each answer on, and waits when its caller is slow.
struct Streamed(mpsc::Sender<Result<Vec<Tensor>, RuntimeError>>);

impl Sink for Streamed {
    fn send(&mut self, outputs: Vec<Tensor>) -> bool {
        self.0.blocking_send(Ok(outputs)).is_ok()
    }
}

/// One run. A panic is a defect of ours; it costs its request, not the model.
fn run(runtime: &mut dyn ModelRuntime, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
    catch_unwind(AssertUnwindSafe(|| runtime.infer(call, sink)))
        .unwrap_or_else(|_| Err(RuntimeError::Failed("the model's runtime broke off; see the log".to_owned())))
}
