//! One instance of a Python model, as the server runs it: the worker that it has now, and the next one where that ends.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    entry::Entry,
    environment::Interpreter,
    frame::{self, Request},
    launch::Plan,
    link::{Link, Numbered as _},
    package, variables,
    watch::{Watched, Watcher},
    worker::{Broken, Worker},
};
use crate::{
    ServeError,
    machine::{memory, placement},
    runtime::{Call, ModelRuntime, Purpose, RuntimeError, Signature, Sink, Trials, Up, own::Own},
    settings::ModelSettings,
};

/// How often the memory of a busy worker is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Workers that one request is offered to, if each ends before it begins.
const TRIES: usize = 3;

/// One instance of a Python model.
#[derive(Debug)]
pub(crate) struct PythonModel {
    signature: Signature,
    trials: Trials,
    /// The metrics that the model declares.
    own: Arc<Own>,
    link: Arc<Link<Worker>>,
    worker: Option<Worker>,
    /// Memory for the next request.
    request: Request,
    /// What its owner knows it by.
    name: String,
    /// Whether callers are told tracebacks.
    send_tracebacks: bool,
    /// What a worker may hold after a run.
    memory: u64,
    /// When that was last looked at.
    looked: Instant,
    watcher: Option<JoinHandle<()>>,
}

impl PythonModel {
    /// Starts a worker and waits until it has loaded the model. Blocks. `cache` is the folder for what is kept
    /// between runs of the server.
    ///
    /// # Errors
    /// [`ServeError::Python`] or [`ServeError::OutOfMemory`] says why there is no model, with Python's traceback where there is one.
    pub(crate) fn open(
        entry: &Entry,
        interpreter: &Interpreter,
        settings: &ModelSettings,
        cache: &Path,
    ) -> Result<Self, ServeError> {
        let io = |what: String| move |source| ServeError::Io { what, source };
        let package = package::unpack(cache)
            .map_err(io(format!("{}: the Python package cannot be written there", cache.display())))?;
        // Relative to the worker's own folder it would be another.
        let path = std::path::absolute(&entry.path).unwrap_or_else(|_| entry.path.clone());
        let memory = memory::limit(settings.python_memory);
        let threads = placement::threads(settings.intra_op_threads);
        let variables = variables::choose(base::config::variables(), &settings.passed, entry.uses, threads);
        if settings.passed.all && !variables.withheld.is_empty() {
            let (model, variables) = (entry.known_as.display(), variables.withheld.join(", "));
            tracing::info!(%model, variables, "credentials that the model does not get; --pass-env NAME gives it one");
        }
        let plan = Plan {
            interpreter: interpreter.path.clone(),
            package,
            entry: Entry { path, ..entry.clone() },
            variables: variables.set,
            memory,
        };
        let own = Arc::new(Own::default());
        let watched = Watched {
            plan,
            name: entry.known_as.display().to_string(),
            load_timeout: settings.load_timeout,
            timeout: settings.timeout,
            own: Arc::clone(&own),
        };
        let no_watcher = || format!("no watcher for {}", entry.known_as.display());
        let link = Arc::new(Link::new().map_err(|e| io(no_watcher())(e.into()))?);
        let (first, started) = mpsc::sync_channel(1);
        let watcher = Watcher::new(watched, Arc::clone(&link), first);
        let watcher = thread::Builder::new().name("watcher".to_owned()).spawn(move || watcher.run());
        let watcher = watcher.map_err(io(no_watcher()))?;
        let mut model = Self {
            // Until the worker has told it.
            signature: Signature::default(),
            trials: Trials::default(),
            own,
            link,
            worker: None,
            request: Request::default(),
            name: entry.known_as.display().to_string(),
            send_tracebacks: settings.send_tracebacks,
            memory: memory::replaced_beyond(memory),
            looked: Instant::now(),
            watcher: Some(watcher),
        };
        let outcome = started.recv().unwrap_or_else(|_| Err("its watcher broke off".to_owned()));
        let introduced = outcome.map_err(|reason| {
            let path = entry.known_as.clone();
            match memory::beyond(&reason, memory, settings.python_memory) {
                Some(limit) => ServeError::OutOfMemory { path, limit, reason },
                None => ServeError::Python { path, reason },
            }
        })?;
        (model.signature, model.trials) = (introduced.signature, introduced.trials);
        Ok(model)
    }

    /// The worker to ask, another than before if that was replaced.
    fn current<'w>(held: &'w mut Option<Worker>, link: &Link<Worker>) -> Result<&'w mut Worker, RuntimeError> {
        let worker = match held.take() {
            Some(worker) if worker.generation() == link.newest() => worker,
            // If it lives, it is let go when there is another.
            old => {
                let next = link.next();
                drop(old);
                next.map_err(|why| {
                    RuntimeError::Unavailable(format!("the model's worker is being restarted; the last one {why}"))
                })?
            }
        };
        Ok(held.insert(worker))
    }

    /// A failure as the caller is told it. The log has all of it.
    fn told(&self, words: &str, trial: bool) -> String {
        let Some((summary, trace)) = words.split_once(frame::TRACEBACK) else { return words.to_owned() };
        if trial {
            tracing::debug!(model = self.name, "{summary}\n{trace}");
        } else {
            tracing::warn!(model = self.name, "{summary}\n{trace}");
        }
        if self.send_tracebacks { format!("{summary}\n{trace}") } else { summary.to_owned() }
    }

    /// Looks now and then at how much memory the worker holds.
    fn look_at_memory(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        if let Some(worker) = &self.worker
            && let Some(held) = memory::held(worker.pid, self.link.lent(), self.memory)
            && held > self.memory
        {
            let why = format!(
                "it holds {} MiB after a run, more than {} (three quarters of serve.python_memory_limit_bytes)",
                held >> 20,
                self.memory >> 20
            );
            let generation = worker.generation();
            self.link.order(|orders| orders.replace = Some((generation, why)));
        }
    }
}

impl ModelRuntime for PythonModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn up(&self) -> Up {
        self.link.up.clone()
    }

    fn allow_absent(&mut self, places: &[usize]) -> bool {
        self.signature.optional = places.to_vec();
        true
    }

    fn trials(&self) -> Trials {
        self.trials
    }

    fn metrics(&self) -> Option<Arc<Own>> {
        Some(Arc::clone(&self.own))
    }

    fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
        for _ in 0..TRIES {
            let worker = Self::current(&mut self.worker, &self.link)?;
            let generation = worker.generation();
            let broken = match worker.run(&call, &self.signature, &mut self.request, sink) {
                Ok(answered) => {
                    self.look_at_memory();
                    return answered.map_err(|error| {
                        if let RuntimeError::Failed(words) = &error {
                            return RuntimeError::Failed(self.told(words, call.purpose == Purpose::Trial));
                        }
                        error
                    });
                }
                Err(broken) => broken,
            };
            let begun = !matches!(broken, Broken::NotBegun);
            self.link.order(|orders| match broken {
                Broken::NotBegun | Broken::Gone => orders.gone = Some(generation),
                Broken::Useless(why) => orders.end = Some((generation, why)),
            });
            let words = self.link.how_it_ended(generation);
            self.worker = None;
            if call.cancel.is_cancelled() {
                return Err(RuntimeError::Cancelled);
            }
            if begun {
                let words = match words.split_once('\n') {
                    Some((first, _)) if !self.send_tracebacks => first.to_owned(),
                    _ => words,
                };
                return Err(RuntimeError::Failed(format!("the model's worker {words}")));
            }
        }
        Err(RuntimeError::Unavailable("the model's workers end before they are asked anything".to_owned()))
    }
}

impl Drop for PythonModel {
    fn drop(&mut self) {
        self.worker = None;
        self.link.order(|orders| orders.stop = true);
        if let Some(watcher) = self.watcher.take() {
            // It has no more to say.
            let _ = watcher.join();
        }
    }
}

#[cfg(test)]
mod tests;
