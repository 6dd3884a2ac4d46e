//! A served model: a queue, the threads that work it off, and the async door before them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use api::inference::{ModelMetadata, Request, Tensor};
use tokio::sync::oneshot;

use crate::{
    error::InferError,
    metrics::ModelMetrics,
    queue::Queue,
    runtime::{Call, Cancel, Last, ModelRuntime, RuntimeError, Signature},
    validate,
};

/// One version of a model, loaded.
#[derive(Debug)]
pub(crate) struct Model {
    /// Its own name; it may be asked for by others.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) signature: Signature,
    pub(crate) metrics: ModelMetrics,
    queue: Arc<Queue<Job>>,
    threads: Vec<JoinHandle<()>>,
    limits: Limits,
}

/// The bounds of one model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Requests that may wait.
    pub(crate) queue: usize,
    /// From arrival to answer.
    pub(crate) time: Duration,
}

/// One request on its way through the queue.
#[derive(Debug)]
struct Job {
    inputs: Vec<Tensor>,
    outputs: Vec<usize>,
    cancel: Cancel,
    answer: oneshot::Sender<Result<Vec<Tensor>, RuntimeError>>,
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
        metrics: ModelMetrics,
        limits: Limits,
    ) -> std::io::Result<Self> {
        let signature = runtimes.first().map(|runtime| runtime.signature().clone());
        let signature = signature.ok_or_else(|| std::io::Error::other("a model without instances"))?;
        let queue = Arc::new(Queue::new(limits.queue));
        let mut threads = Vec::with_capacity(runtimes.len());
        for runtime in runtimes {
            let queue = Arc::clone(&queue);
            threads.push(thread::Builder::new().name("model".to_owned()).spawn(move || work(runtime, &queue))?);
        }
        metrics.set_loaded(true);
        Ok(Self { name, version, signature, metrics, queue, threads, limits })
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
    pub(crate) async fn infer(&self, request: Request) -> Result<Vec<Tensor>, InferError> {
        let began = Instant::now();
        let result = self.run(request, began).await;
        match &result {
            Ok(_) => self.metrics.predicted(began.elapsed()),
            Err(error) => self.metrics.refused(error),
        }
        result
    }

    async fn run(&self, request: Request, began: Instant) -> Result<Vec<Tensor>, InferError> {
        if let Some(name) = request.parameters.keys().find(|name| name.starts_with("sequence_")) {
            // Served one by one, the parts of a sequence would get wrong answers without a word.
            return Err(InferError::Unsupported(format!("`{name}`: models with a memory of sequences are not served")));
        }
        let time = self.time_for(&request);
        let outputs = validate::choose_outputs(&self.signature, &request.outputs)?;
        let inputs = validate::order_inputs(&self.signature, request.inputs)?;
        let (answer, answered) = oneshot::channel();
        let mut waiting = Waiting { cancel: Cancel::default(), answered: false };
        let job = Job { inputs, outputs, cancel: waiting.cancel.clone(), answer };
        if self.queue.push(job).is_err() {
            return Err(InferError::QueueFull { model: self.name.clone(), limit: self.limits.queue });
        }
        let result = tokio::time::timeout_at((began + time).into(), answered).await;
        waiting.answered = result.is_ok();
        match result {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(_)) => Err(InferError::Failed("the model's thread ended".to_owned())),
            Err(_) => Err(InferError::TimedOut(time.as_millis())),
        }
    }

    /// The request's own `timeout` (microseconds) can only shorten the server's.
    fn time_for(&self, request: &Request) -> Duration {
        match request.parameters.get("timeout").and_then(api::inference::Parameter::as_u64) {
            Some(micros) if micros > 0 => Duration::from_micros(micros).min(self.limits.time),
            _ => self.limits.time,
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.queue.close();
        self.metrics.set_loaded(false);
    }
}

/// A model's thread: one job after the other until the queue is closed.
fn work(mut runtime: Box<dyn ModelRuntime>, queue: &Queue<Job>) {
    while let Some(job) = queue.take() {
        // Its caller left while it waited.
        if job.answer.is_closed() {
            continue;
        }
        let mut last = Last::default();
        let call = Call { inputs: &job.inputs, outputs: &job.outputs, cancel: &job.cancel };
        // A panic is a defect of ours; it costs its request, not the model.
        let result = catch_unwind(AssertUnwindSafe(|| runtime.infer(call, &mut last)))
            .unwrap_or_else(|_| Err(RuntimeError::Failed("the model's runtime broke off; see the log".to_owned())));
        let answer =
            result.and_then(|()| last.0.ok_or_else(|| RuntimeError::Failed("the model made nothing".to_owned())));
        // The caller may have left meanwhile.
        let _ = job.answer.send(answer);
    }
}
