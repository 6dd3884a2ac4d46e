//! The thread of a model: takes a batch, runs it, and gives each client its own answer.
//!
//! If a run of several requests fails, they are run again one by one, so that an invalid request only costs the others
//! time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use inference::Tensor;
use tokio::{runtime::Handle, sync::mpsc};

use super::{Answer, Answered, Job, join};
use crate::{
    error::InferError,
    metrics::ModelMetrics,
    metrics::statistics::{Parts, Statistics},
    run::queue::{Queue, Ran},
    runtime::{Call, Cancel, ModelRuntime, Purpose, RuntimeError, Sink, Up},
};

/// How long a model waits for a client that does not read a streamed answer.
const SLOW_READER: Duration = Duration::from_secs(10);

/// One of a model's threads.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) runtime: Box<dyn ModelRuntime>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) metrics: Arc<ModelMetrics>,
    /// The async runtime, whose clock limits slow readers.
    pub(crate) handle: Option<Handle>,
    /// Whether every output has the rows of the inputs.
    pub(crate) rows: bool,
    /// Whether this instance can run, and whether any can.
    pub(crate) up: Up,
    pub(crate) all: Arc<[Up]>,
}

impl Worker {
    /// Works until the queue is closed and empty.
    pub(crate) fn work(mut self) {
        let mut ran = None;
        let (up, all, queue) = (self.up.clone(), Arc::clone(&self.all), Arc::clone(&self.queue));
        // If no instance can run, this one reports it.
        let takes = || up.is_up() || !all.iter().any(Up::is_up);
        while let Some(mut jobs) = queue.take(ran.take(), &takes) {
            ran = match (jobs.pop(), jobs.is_empty()) {
                (Some(job), true) => self.alone(job),
                (Some(job), false) => {
                    jobs.push(job);
                    self.joined(jobs)
                }
                (None, _) => None,
            };
        }
    }

    /// Runs one request.
    fn alone(&mut self, job: Job) -> Option<Ran> {
        let began = Instant::now();
        let waited = began.saturating_duration_since(job.arrived);
        let rows = job.rows;
        let call = Call {
            inputs: &job.inputs,
            outputs: &job.outputs,
            parameters: &job.parameters,
            input_parameters: &job.input_parameters,
            cancel: &job.cancel,
            purpose: Purpose::Request,
        };
        match job.answer {
            Answer::One(answer) => {
                let made = run_once(self.runtime.as_mut(), call);
                if let Err(RuntimeError::Unavailable(_)) = made
                    && self.all.iter().any(Up::takes_over)
                {
                    self.hand_over(Job { answer: Answer::One(answer), ..job });
                    return None;
                }
                self.statistics.queue.add(waited);
                let took = began.elapsed();
                if let (Ok(made), Some(rows), true) = (&made, rows, self.rows)
                    && let Err(error) = join::check_rows(made, rows)
                {
                    // The answer belongs to the request, but the rows of such a model do not correspond to those of the
                    // inputs.
                    self.stop_joining(&error);
                }
                if made.is_ok() {
                    self.note(
                        1,
                        rows.unwrap_or(1),
                        Parts { infer: took, input: Duration::ZERO, output: Duration::ZERO },
                    );
                }
                let ran = rows.filter(|_| made.is_ok()).map(|rows| Ran { requests: 1, rows, took });
                // The client may have disconnected meanwhile.
                let _ = answer.send(made.map_err(InferError::from));
                ran
            }
            Answer::Each(answers) => {
                let mut sink = Streamed { answers, handle: self.handle.as_ref() };
                let result = run(self.runtime.as_mut(), call, &mut sink);
                if let Err(RuntimeError::Unavailable(_)) = result
                    && self.all.iter().any(Up::takes_over)
                {
                    self.hand_over(Job { answer: Answer::Each(sink.answers), ..job });
                    return None;
                }
                self.statistics.queue.add(waited);
                match result {
                    Ok(()) => {
                        let parts = Parts { infer: began.elapsed(), input: Duration::ZERO, output: Duration::ZERO };
                        self.note(1, rows.unwrap_or(1), parts);
                    }
                    Err(error) => {
                        sink.hand_on(Err(error.into()));
                    }
                }
                None
            }
        }
    }

    /// Runs several requests together.
    fn joined(&mut self, jobs: Vec<Job>) -> Option<Ran> {
        let began = Instant::now();
        let rows = jobs.iter().filter_map(|job| job.rows).sum();
        let (first, places) = (jobs.first()?, join::wanted(&jobs));
        let Some(inputs) = join::join(&jobs, rows) else { return self.one_by_one(jobs) };
        let joined = Instant::now();
        let callers = jobs.iter().map(|job| job.cancel.clone()).collect();
        let (runtime, queue) = (self.runtime.as_mut(), &self.queue);
        let made = queue.share(callers, |cancel: &Cancel| {
            let call = Call {
                inputs: &inputs,
                outputs: &places,
                parameters: &first.parameters,
                input_parameters: &first.input_parameters,
                cancel,
                purpose: Purpose::Request,
            };
            run_once(runtime, call)
        });
        drop(inputs);
        let infer = joined.elapsed();
        match made {
            Ok(made) => {
                if let Err(error) = join::check_rows(&made, rows) {
                    self.stop_joining(&error);
                    return self.one_by_one(jobs);
                }
                let requests = jobs.len();
                for job in &jobs {
                    self.statistics.queue.add(began.saturating_duration_since(job.arrived));
                }
                let parted = Instant::now();
                let answers = apart(&made, &places, jobs);
                let parts = Parts { input: joined.saturating_duration_since(began), infer, output: parted.elapsed() };
                self.note(requests, rows, parts);
                for (to, answered) in answers {
                    to.send(answered);
                }
                Some(Ran { requests, rows, took: infer })
            }
            Err(RuntimeError::Cancelled) => {
                for job in jobs {
                    job.answer.send(Err(RuntimeError::Cancelled.into()));
                }
                None
            }
            Err(
                RuntimeError::Rejected(_)
                | RuntimeError::Unavailable(_)
                | RuntimeError::MemoryFull(_)
                | RuntimeError::Failed(_),
            ) => self.one_by_one(jobs),
        }
    }

    fn one_by_one(&mut self, jobs: Vec<Job>) -> Option<Ran> {
        for job in jobs {
            if job.is_late(Instant::now()) {
                job.expire();
            } else if !job.is_left() {
                self.alone(job);
            }
        }
        None
    }

    /// Leaves a request that was not begun to an instance that can run.
    fn hand_over(&self, job: Job) {
        if let Some(job) = self.queue.give_back(job) {
            let words = "the model's worker has ended, and the server is ending".to_owned();
            job.answer.send(Err(InferError::NotReady(words)));
        }
    }

    fn stop_joining(&self, error: &RuntimeError) {
        if self.queue.never_join() {
            tracing::warn!(model = self.name, %error, "its requests are run one by one from now on");
        }
    }

    fn note(&self, requests: usize, rows: usize, parts: Parts) {
        self.statistics.ran(u64::try_from(requests).unwrap_or(u64::MAX), rows, parts);
        self.metrics.ran(rows);
    }
}

/// Gives each job its own rows of the common outputs.
fn apart(made: &[Tensor], places: &[usize], jobs: Vec<Job>) -> Vec<(Answer, Answered)> {
    let mut from = 0;
    let one = |job: Job| {
        let rows = job.rows.unwrap_or(0);
        let own = join::part(made, places, &job.outputs, from, rows);
        from += rows;
        (job.answer, own.ok_or_else(|| InferError::Failed("the model's answer cannot be parted".to_owned())))
    };
    jobs.into_iter().map(one).collect()
}

/// Passes each answer on, and waits for a limited time if its client is slow.
struct Streamed<'h> {
    answers: mpsc::Sender<Answered>,
    handle: Option<&'h Handle>,
}

impl Streamed<'_> {
    fn hand_on(&mut self, answered: Answered) -> bool {
        let answered = match self.answers.try_send(answered) {
            Ok(()) => return true,
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
            Err(mpsc::error::TrySendError::Full(answered)) => answered,
        };
        let Some(handle) = self.handle else { return self.answers.blocking_send(answered).is_ok() };
        let end = Instant::now() + SLOW_READER;
        // The timer must be created within the async runtime.
        let sent = async { tokio::time::timeout_at(end.into(), self.answers.send(answered)).await };
        matches!(handle.block_on(sent), Ok(Ok(())))
    }
}

impl Sink for Streamed<'_> {
    fn send(&mut self, outputs: Vec<Tensor>) -> bool {
        self.hand_on(Ok(outputs))
    }
}

/// A run with one answer.
fn run_once(runtime: &mut dyn ModelRuntime, call: Call<'_>) -> Result<Vec<Tensor>, RuntimeError> {
    let mut only = Only::default();
    let ran = run(runtime, call, &mut only);
    if only.several {
        let words =
            "the model makes more than one answer to this: ask for generate_stream, or ModelStreamInfer of gRPC";
        return Err(RuntimeError::Rejected(words.to_owned()));
    }
    ran?;
    only.answer.ok_or_else(|| RuntimeError::Failed("the model made nothing".to_owned()))
}

/// Takes one answer, and ends the run at a second one: a client that wants one answer must not get a part of several.
#[derive(Default)]
struct Only {
    answer: Option<Vec<Tensor>>,
    several: bool,
}

impl Sink for Only {
    fn send(&mut self, outputs: Vec<Tensor>) -> bool {
        self.several = self.answer.is_some();
        self.answer = Some(outputs);
        !self.several
    }
}

/// One run. A panic is a bug in Modelway; it fails its request, not the model.
fn run(runtime: &mut dyn ModelRuntime, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
    catch_unwind(AssertUnwindSafe(|| runtime.infer(call, sink)))
        .unwrap_or_else(|_| Err(RuntimeError::Failed("the model's runtime broke off; see the log".to_owned())))
}
