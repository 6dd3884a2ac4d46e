//! Monitors the workers of one instance: starts them, reads their output, and replaces those that end.
//!
//! It has its own thread, which is the parent of every worker process: the kernel ends them together with it.
//!
//! **Invariant:** the end of every worker is observed, and everything that it had started is ended too.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, SendFlags, Shutdown, recvmsg, send, shutdown,
    },
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{
    frame::{self, Kind, MORE, PREFIX, Prefix},
    guard::Guard,
    hello::{self, Introduced},
    launch::{Plan, Process, end_group},
    link::{Link, RunId},
    output::Output,
    worker::Worker,
};
use crate::{
    machine::{memory::Limits, tree::children},
    runtime::own::Own,
};

/// How long a run may continue after it was interrupted because nobody waits for it.
const GRACE: Duration = Duration::from_secs(2);
/// How long an unwanted worker may take to end by itself.
const LEAVING: Duration = Duration::from_millis(500);
/// How long a worker and its descendants may take to end.
const ENDING: Duration = Duration::from_secs(6);
/// Interval of checking the memory of a worker.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The first delay before a worker is started after two have ended without an answer, and the maximum delay.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long to wait after a failed start of a successor.
const NEXT_SUCCESSOR: Duration = Duration::from_secs(60);

/// How workers are started and how long they may take.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) plan: Plan,
    /// The name of the model in the log.
    pub(super) name: String,
    /// Maximum time for loading.
    pub(super) load_timeout: Duration,
    /// Maximum time for a request.
    pub(super) timeout: Duration,
    /// The model's own metrics.
    pub(super) own: Arc<Own>,
}

/// The state of a worker.
#[derive(Debug)]
enum Phase {
    /// It loads the model. The part of its report that has arrived.
    Loading { until: Instant, said: Vec<u8>, closed: bool },
    /// It serves.
    Serving,
    /// It is not wanted any more.
    Leaving { until: Instant },
}

#[derive(Debug)]
struct Running {
    generation: u64,
    process: Process,
    stdout: Output,
    stderr: Output,
    phase: Phase,
    /// Why it was killed from here.
    verdict: Option<String>,
    /// Why the model cannot be loaded, in Python's words.
    unloadable: Option<String>,
    /// It has closed its socket, and its deadline to end.
    closed: Option<Instant>,
    /// An interrupted run, and its deadline.
    interrupted: Option<(RunId, Instant)>,
    /// What its filter asks.
    guard: Option<Guard>,
    /// The process that runs the model.
    inner: Option<OwnedFd>,
    /// When its memory is checked next.
    look: Instant,
    /// It was told to end with all its descendants; when it is killed alone if it has not ended.
    ending: Option<Instant>,
    /// It has ended.
    ended: bool,
}

/// The watcher's thread.
pub(super) struct Watcher {
    watched: Watched,
    link: Arc<Link<Worker>>,
    workers: Vec<Running>,
    generation: u64,
    introduced: Option<Introduced>,
    /// The receiver of the result of the first start.
    first: Option<std::sync::mpsc::SyncSender<Result<Introduced, String>>>,
    /// The number of consecutive workers that ended without an answer.
    failures: u32,
    start_at: Option<Instant>,
    no_successor_before: Option<Instant>,
    stopping: bool,
    limits: Limits,
}

impl Watcher {
    pub(super) fn new(
        watched: Watched,
        link: Arc<Link<Worker>>,
        first: std::sync::mpsc::SyncSender<Result<Introduced, String>>,
    ) -> Self {
        let limits = Limits(watched.plan.memory);
        Self {
            watched,
            link,
            workers: Vec::new(),
            generation: 0,
            introduced: None,
            first: Some(first),
            failures: 0,
            start_at: Some(Instant::now()),
            no_successor_before: None,
            stopping: false,
            limits,
        }
    }

    /// Runs until it is told to stop, or the first worker cannot load the model.
    pub(super) fn run(mut self) {
        while !(self.stopping && self.workers.is_empty()) {
            if !self.stopping && self.start_at.is_some_and(|at| at <= Instant::now()) {
                self.start_at = None;
                self.start();
            }
            self.wait();
            self.obey();
            for place in 0..self.workers.len() {
                self.attend(place);
            }
            self.look_at_the_clock();
            self.bury();
        }
    }

    /// Starts a worker.
    fn start(&mut self) {
        self.generation += 1;
        let generation = self.generation;
        match Process::start(&self.watched.plan) {
            Ok((mut process, stdout, stderr)) => {
                if let Some(counts) = process.counts.take() {
                    self.watched.own.begin(generation, counts);
                }
                tracing::debug!(model = self.watched.name, pid = %process.pid, generation, "a worker starts");
                self.workers.push(Running {
                    generation,
                    process,
                    stdout: Output::new(stdout, "stdout"),
                    stderr: Output::new(stderr, "stderr"),
                    phase: Phase::Loading {
                        until: Instant::now() + self.watched.load_timeout,
                        said: Vec::new(),
                        closed: false,
                    },
                    verdict: None,
                    unloadable: None,
                    closed: None,
                    interrupted: None,
                    guard: None,
                    inner: None,
                    look: Instant::now() + LOOK_EVERY,
                    ending: None,
                    ended: false,
                });
            }
            Err(error) => {
                let words = format!("{} cannot be started: {error}", self.watched.plan.interpreter.display());
                self.mourn(generation, &words, None, false, true);
            }
        }
    }

    /// Waits for the next event.
    fn wait(&self) {
        let mut descriptors = vec![PollFd::new(&self.link.wake, PollFlags::IN)];
        for worker in &self.workers {
            descriptors.push(PollFd::new(&worker.process.pidfd, PollFlags::IN));
            for output in [&worker.stdout, &worker.stderr] {
                if !output.ended {
                    descriptors.push(PollFd::new(&output.pipe, PollFlags::IN));
                }
            }
            if matches!(worker.phase, Phase::Loading { closed: false, .. }) {
                descriptors.push(PollFd::new(&*worker.process.socket, PollFlags::IN));
            }
            if let Some(guard) = &worker.guard {
                descriptors.push(PollFd::new(&guard.questions, PollFlags::IN));
            }
        }
        let timers = self.workers.iter().flat_map(|worker| {
            let phase = match &worker.phase {
                Phase::Loading { until, .. } | Phase::Leaving { until } => Some(*until),
                Phase::Serving => None,
            };
            let others = worker.interrupted.map(|(_, until)| until).into_iter().chain(worker.ending);
            let notes = [&worker.stdout, &worker.stderr].into_iter().filter_map(Output::due);
            phase.into_iter().chain(worker.closed).chain(others).chain(notes).chain([worker.look])
        });
        let next = timers.chain(self.start_at.filter(|_| !self.stopping)).min();
        // A little later than requested, so that the deadline has passed when it wakes.
        let left = next.map(|next| next.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        // It fails when a signal arrives, or without memory: then everything is checked once more.
        let _ = poll(&mut descriptors, left.as_ref());
    }

    fn obey(&mut self) {
        let orders = self.link.take_orders();
        if let Some(id) = orders.cancel
            && !self.link.is_finished(id)
            && let Some(worker) = self.workers.iter_mut().find(|worker| worker.generation == id.generation)
        {
            worker.interrupt(id);
        }
        if let Some(generation) = orders.gone
            && let Some(worker) = self.workers.iter_mut().find(|worker| worker.generation == generation)
        {
            worker.closed = Some(Instant::now() + LEAVING);
        }
        if let Some((generation, why)) = orders.end
            && let Some(worker) = self.workers.iter_mut().find(|worker| worker.generation == generation)
        {
            worker.end(why);
        }
        if let Some((generation, why)) = orders.replace
            && generation == self.link.newest()
            && self.workers.iter().all(|worker| !matches!(worker.phase, Phase::Loading { .. }))
            && self.no_successor_before.is_none_or(|at| at <= Instant::now())
        {
            tracing::warn!(model = self.watched.name, generation, why, "the worker is replaced");
            self.start();
        }
        for worker in &mut self.workers {
            if orders.stop || orders.retired == Some(worker.generation) {
                worker.let_go();
            }
        }
        self.stopping |= orders.stop;
    }

    /// Reads one frame from a worker.
    fn attend(&mut self, place: usize) {
        let name = &self.watched.name;
        let Some(worker) = self.workers.get_mut(place) else { return };
        worker.stdout.take(name);
        worker.stderr.take(name);
        if let Some(guard) = &mut worker.guard
            && !guard.answer(name, worker.ending.is_some())
        {
            // Nobody is left to ask.
            worker.guard = None;
        }
        if let Phase::Loading { .. } = worker.phase {
            match worker.listen() {
                Said::Nothing => {}
                Said::Introduced(introduced) => self.take_in(place, introduced),
                Said::Nonsense(words) => worker.end(words),
                Said::Unloadable(words) => {
                    worker.end(format!("could not load the model: {words}"));
                    worker.unloadable = Some(words);
                }
            }
        }
        if let Some(worker) = self.workers.get_mut(place) {
            worker.ended = has_ended(worker);
        }
    }

    /// A worker has loaded the model.
    fn take_in(&mut self, place: usize, introduced: Introduced) {
        let Some(worker) = self.workers.get_mut(place) else { return };
        if let Some(known) = &self.introduced
            && *known != introduced
        {
            worker.end("has loaded another model than before: its inputs or outputs have changed".to_owned());
            return;
        }
        let made = Worker::new(
            worker.generation,
            worker.process.pid,
            Arc::clone(&worker.process.socket),
            self.watched.timeout,
            &self.link,
        );
        // Its first child runs the model; adopted processes come later.
        let inner = children(worker.process.pid.as_raw_nonzero().get()).first().copied().and_then(Pid::from_raw);
        worker.inner = inner.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        match made {
            Ok(made) => {
                worker.phase = Phase::Serving;
                tracing::info!(model = self.watched.name, pid = %worker.process.pid, "the worker has loaded the model");
                self.link.offer(made);
                self.introduced = Some(introduced.clone());
                if let Some(first) = self.first.take() {
                    // The caller that opens the model may have given up.
                    let _ = first.send(Ok(introduced));
                }
            }
            Err(error) => worker.end(format!("has a socket that fails: {error}")),
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        for worker in &mut self.workers {
            match worker.phase {
                Phase::Loading { until, .. } if until <= now => {
                    let time = self.watched.load_timeout.as_millis();
                    worker.end(format!("did not load the model within {time} ms (serve.load_timeout_ms)"));
                }
                Phase::Leaving { until } if until <= now => worker.end("did not end when it was asked to".to_owned()),
                Phase::Loading { .. } | Phase::Serving | Phase::Leaving { .. } => {}
            }
            if worker.ending.is_some_and(|until| until <= now) {
                worker.ending = None;
                worker.kill();
            }
            if worker.look <= now {
                worker.look = now + LOOK_EVERY;
                if let Some(words) = self.limits.exceeded(worker.process.pid, self.link.lent()) {
                    worker.end(words);
                }
            }
            if worker.closed.is_some_and(|until| until <= now) {
                worker.closed = None;
                worker.end("closed its socket to the server".to_owned());
            }
            if let Some((id, until)) = worker.interrupted {
                if self.link.is_finished(id) {
                    worker.interrupted = None;
                } else if until <= now {
                    worker.interrupted = None;
                    let grace = GRACE.as_millis();
                    worker.end(format!("went on for {grace} ms after nobody waited for its answer any more"));
                }
            }
        }
    }

    /// Handles workers that have ended.
    fn bury(&mut self) {
        while let Some(place) = self.workers.iter().position(|worker| worker.ended) {
            let mut worker = self.workers.swap_remove(place);
            let status = worker.rest(&self.watched.name);
            self.watched.own.end(worker.generation);
            let words = worker.obituary(status);
            let was_loading = matches!(worker.phase, Phase::Loading { .. });
            let wanted = !matches!(worker.phase, Phase::Leaving { .. });
            let answered = self.link.has_answered(worker.generation);
            if wanted && !self.stopping {
                // For the first worker, the caller that opens the model gets the reason and reports it.
                if self.first.is_none() {
                    tracing::warn!(model = self.watched.name, pid = %worker.process.pid, "the worker {words}");
                }
                self.mourn(worker.generation, &words, worker.unloadable, answered, was_loading);
            } else {
                self.link.tell_end(worker.generation, words, false);
            }
        }
    }

    /// A worker that was wanted has ended.
    fn mourn(&mut self, generation: u64, words: &str, unloadable: Option<String>, answered: bool, was_loading: bool) {
        if let Some(first) = self.first.take() {
            self.stopping = true;
            // The caller that opens the model may have given up.
            let _ = first.send(Err(unloadable.unwrap_or_else(|| format!("its worker {words}"))));
            return;
        }
        let others = self.workers.iter().any(|worker| !matches!(worker.phase, Phase::Leaving { .. }));
        self.link.tell_end(generation, words.to_owned(), !others);
        if others {
            if was_loading {
                self.no_successor_before = Some(Instant::now() + NEXT_SUCCESSOR);
            }
            return;
        }
        self.failures = if answered { 1 } else { self.failures.saturating_add(1) };
        let pause = match self.failures {
            0 | 1 => Duration::ZERO,
            more => FIRST_PAUSE.saturating_mul(1 << (more - 2).min(16)).min(LONGEST_PAUSE),
        };
        self.start_at = Some(Instant::now() + pause);
    }
}

/// Whether it can be waited for.
fn has_ended(worker: &Running) -> bool {
    let mut descriptor = [PollFd::new(&worker.process.pidfd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut descriptor, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// Handles a frame of a loading worker.
enum Said {
    Nothing,
    Introduced(Introduced),
    /// The model cannot be loaded, in Python's words.
    Unloadable(String),
    /// A correct worker never sends this.
    Nonsense(String),
}

impl Running {
    /// Reads one part of its report.
    fn listen(&mut self) -> Said {
        let Phase::Loading { said, closed, .. } = &mut self.phase else { return Said::Nothing };
        if *closed {
            return Said::Nothing;
        }
        let mut buffer = vec![0; frame::LARGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let slices = &mut [IoSliceMut::new(&mut buffer)];
        let size = match recvmsg(self.process.socket.as_fd(), slices, &mut control, flags) {
            Ok(RecvMsg { bytes: size, .. }) if size > 0 => size,
            Err(Errno::AGAIN | Errno::INTR) => return Said::Nothing,
            // It has ended; its exit status will be available soon.
            Ok(_) | Err(Errno::CONNRESET) => {
                *closed = true;
                return Said::Nothing;
            }
            Err(error) => return Said::Nonsense(format!("has a socket that fails: {error}")),
        };
        let Some(prefix) = Prefix::of_worker(&buffer[..size]) else {
            return Said::Nonsense("sent what is no frame".to_owned());
        };
        match prefix.kind {
            Kind::Hello if said.len() + size <= hello::LARGEST => {
                said.extend_from_slice(&buffer[PREFIX..size]);
                if prefix.flags & MORE != 0 {
                    return Said::Nothing;
                }
                match hello::read(said) {
                    Ok(introduced) => Said::Introduced(introduced),
                    Err(words) => Said::Nonsense(words),
                }
            }
            Kind::Hello => Said::Nonsense(format!("has a signature of more than {} bytes", hello::LARGEST)),
            // Nothing of the model has run before the first one.
            Kind::Guard if self.guard.is_none() => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                        self.guard = descriptors.last().map(|questions| Guard::new(questions, self.process.pid));
                    }
                }
                Said::Nothing
            }
            Kind::Unloadable => Said::Unloadable(String::from_utf8_lossy(&buffer[PREFIX..size]).into_owned()),
            other @ (Kind::Run
            | Kind::Cancel
            | Kind::Area
            | Kind::Taken
            | Kind::Answer
            | Kind::End
            | Kind::Error
            | Kind::Guard
            | Kind::Need) => Said::Nonsense(format!("sent a frame of kind {other:?} before its signature")),
        }
    }

    /// Tells it that nobody waits for a run any more.
    fn interrupt(&mut self, id: RunId) {
        if self.interrupted.is_some_and(|(before, _)| before == id) {
            return;
        }
        self.interrupted = Some((id, Instant::now() + GRACE));
        let cancel = Prefix::new(Kind::Cancel, id.run, 0).bytes();
        // If it cannot be told, its deadline passes.
        let _ = send(&self.process.socket, &cancel, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        if let Some(inner) = &self.inner {
            let _ = pidfd_send_signal(inner, Signal::INT);
        }
    }

    /// Kills it at once, with all its descendants.
    fn end(&mut self, why: String) {
        self.verdict.get_or_insert(why);
        // The keeper first ends its descendants.
        let _ = pidfd_send_signal(&self.process.pidfd, Signal::TERM);
        self.ending.get_or_insert_with(|| Instant::now() + ENDING);
        // For whoever waits at the socket, even if something else holds its other end.
        let _ = shutdown(&self.process.socket, Shutdown::Both);
    }

    /// Kills its two processes, if one should have ended the other and did not.
    fn kill(&self) {
        end_group(self.process.pid);
        if let Some(inner) = &self.inner {
            let _ = pidfd_send_signal(inner, Signal::KILL);
        }
    }

    /// Lets it end by itself.
    fn let_go(&mut self) {
        if !matches!(self.phase, Phase::Leaving { .. }) {
            self.phase = Phase::Leaving { until: Instant::now() + LEAVING };
            let _ = shutdown(&self.process.socket, Shutdown::Both);
        }
    }

    /// Cleans up after its end, and reads its last output.
    fn rest(&mut self, name: &str) -> Option<ExitStatus> {
        self.kill();
        let _ = shutdown(&self.process.socket, Shutdown::Both);
        let status = self.process.child.wait().ok();
        for output in [&mut self.stdout, &mut self.stderr] {
            // Output from before the end is available now.
            for _ in 0..4 {
                output.take(name);
            }
        }
        status
    }

    /// How it ended, as the continuation of "the worker".
    fn obituary(&self, status: Option<ExitStatus>) -> String {
        if let Some(why) = &self.verdict {
            return why.clone();
        }
        let how = match status.map(|status| (status.signal(), status.code())) {
            Some((Some(signal), _)) => signal_words(signal),
            Some((None, Some(code))) => format!("ended by itself with status {code}"),
            Some((None, None)) | None => "ended".to_owned(),
        };
        let last = self.stderr.last_lines();
        if last.is_empty() { how } else { format!("{how}; it wrote last:\n{last}") }
    }
}

/// The name of a signal that ended a worker.
fn signal_words(signal: i32) -> String {
    let (name, meaning) = match signal {
        4 => ("SIGILL", "an instruction that this CPU does not know"),
        6 => ("SIGABRT", "its own abort"),
        7 => ("SIGBUS", "memory that was not there"),
        8 => ("SIGFPE", "a division by zero in native code"),
        9 => ("SIGKILL", "ended from outside: by the kernel when memory ran out, or by somebody"),
        11 => ("SIGSEGV", "a segmentation fault in native code"),
        15 => ("SIGTERM", "ended from outside"),
        other => return format!("was ended by signal {other}"),
    };
    format!("was ended by {name}: {meaning}")
}
