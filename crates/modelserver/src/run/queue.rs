//! The queue of one model, between async callers and the threads of the model.
//!
//! The async side adds a job, and is refused at once if the line is full; a thread takes a whole batch. A thread that
//! finds work does not sleep between runs. A thread is woken only if one sleeps and has not been woken already, so that
//! there are no wake-ups under load. The pure modules in [`crate::run::batch`] decide what to take; this module has the
//! lock, the clock and the sleep.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    metrics::ModelMetrics,
    run::{
        batch::{
            Job, join,
            line::{Choice, Line, Taken},
            size::{Plan, Sizes},
        },
        caller::Caller,
    },
    runtime::Cancel,
};

/// After which time a thread that could not run anything checks again.
const ASIDE: Duration = Duration::from_millis(20);

/// The queue of a model.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Idle threads sleep here.
    work: Condvar,
    /// Threads whose instance cannot run now sleep here.
    aside: Condvar,
    /// Threads that wait for a full batch sleep here.
    full: Condvar,
    /// How long a request may wait for others.
    delay: Duration,
    metrics: std::sync::Arc<ModelMetrics>,
}

#[derive(Debug)]
struct State {
    line: Line<Job>,
    sizes: Sizes,
    /// The number of idle threads.
    idle: usize,
    /// The number of threads that were woken and do not run yet.
    woken: usize,
    /// The number of threads that wait for a full batch.
    filling: usize,
    /// Jobs in the line whose clients disconnected; an upper bound.
    left: usize,
    /// Jobs that another thread took and could not begin.
    returned: VecDeque<Job>,
    /// Runs with several waiting clients.
    shared: Vec<Shared>,
    closed: bool,
}

/// A run that continues until its last client disconnects.
#[derive(Debug)]
struct Shared {
    run: Cancel,
    callers: Vec<Cancel>,
}

/// A job was refused: the line is full, or closed.
#[derive(Debug)]
pub(crate) struct Full;

/// The measurement of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pub(crate) requests: usize,
    pub(crate) rows: usize,
    pub(crate) took: Duration,
}

/// Wakes a thread for a job when it is dropped, if one sleeps. On a shared CPU a woken thread runs at once, with this
/// single job: a caller with more jobs adds them first.
#[derive(Debug)]
pub(crate) struct Bell<'q> {
    queue: &'q Queue,
    wake: bool,
}

impl Bell<'_> {
    /// Whether a thread must be woken.
    pub(crate) fn will_ring(&self) -> bool {
        self.wake
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        if self.wake {
            self.queue.work.notify_one();
        }
    }
}

impl Queue {
    pub(crate) fn new(limit: usize, delay: Duration, sizes: Sizes, metrics: std::sync::Arc<ModelMetrics>) -> Self {
        let state = State {
            line: Line::new(limit),
            sizes,
            idle: 0,
            woken: 0,
            filling: 0,
            left: 0,
            returned: VecDeque::new(),
            shared: Vec::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            aside: Condvar::new(),
            full: Condvar::new(),
            delay,
            metrics,
        }
    }

    /// Adds a job; refuses it at once if the line is full or closed.
    pub(crate) fn push(&self, level: u32, caller: Caller, job: Job) -> Result<Bell<'_>, Full> {
        let rows = job.rows.unwrap_or(1);
        let mut state = self.lock();
        if state.closed {
            return Err(Full);
        }
        let mut swept = Vec::new();
        let mut pushed = state.line.push(level, caller, rows, job);
        if let Err(job) = pushed {
            // The places of disconnected clients are free.
            if state.left > 0 {
                swept = state.sweep();
            }
            pushed = state.line.push(level, caller, rows, job);
        }
        let wake = pushed.is_ok() && state.wakes();
        let full = state.filling > 0 && state.line.rows() >= state.sizes.full();
        self.metrics.set_queue_depth(state.line.len());
        drop(state);
        drop(swept);
        if full {
            self.full.notify_one();
        }
        pushed.map(|()| Bell { queue: self, wake }).map_err(|_| Full)
    }

    /// Waits for a batch. `None` once the queue is closed and empty. Also records the measurement of the previous run.
    /// While `able` says that this thread cannot run jobs, they are left to other threads.
    pub(crate) fn take(&self, ran: Option<Ran>, able: &dyn Fn() -> bool) -> Option<Vec<Job>> {
        let mut state = self.lock();
        if let Some(Ran { requests, rows, took }) = ran {
            state.sizes.ran(requests, rows, took);
        }
        loop {
            if state.line.len() == 0 && state.returned.is_empty() {
                if state.closed {
                    return None;
                }
                state = self.sleep(state);
                continue;
            }
            if !state.closed && !able() {
                if state.wakes() {
                    self.work.notify_one();
                }
                (state, _) = self.aside.wait_timeout(state, ASIDE).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let now = Instant::now();
            if let Some(job) = state.returned.pop_front() {
                if job.is_late(now) {
                    job.expire();
                } else if !job.is_left() {
                    return Some(vec![job]);
                }
                continue;
            }
            if let Some(rest) = self.rest(&state, now) {
                state.filling += 1;
                let (again, _) = self.full.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
                state = again;
                state.filling -= 1;
                continue;
            }
            let Taken { run, dropped } = state.choose(now);
            self.metrics.set_queue_depth(state.line.len());
            // Another thread may take the rest.
            let wake = state.line.len() > 0 && state.wakes();
            drop(state);
            if wake {
                self.work.notify_one();
            }
            for job in dropped {
                if !job.is_left() {
                    job.expire();
                }
            }
            if !run.is_empty() {
                return Some(run);
            }
            state = self.lock();
        }
    }

    /// Returns a job that was taken and not begun; it goes first. If the queue is closed, the caller gets it back.
    pub(crate) fn give_back(&self, job: Job) -> Option<Job> {
        let mut state = self.lock();
        if state.closed {
            return Some(job);
        }
        state.returned.push_back(job);
        if state.wakes() {
            self.work.notify_one();
        }
        None
    }

    /// Sleeps until woken for work.
    fn sleep<'s>(&self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.idle += 1;
        while state.woken == 0 && !state.closed {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.woken > 0 {
            state.woken -= 1;
        } else {
            state.idle -= 1;
        }
        state
    }

    /// How long to wait for more jobs, if at all.
    fn rest(&self, state: &State, now: Instant) -> Option<Duration> {
        if self.delay.is_zero() || state.closed || state.line.rows() >= state.sizes.full() {
            return None;
        }
        let oldest = state.line.first().map(|job| job.arrived).min()?;
        (oldest + self.delay).checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    /// Runs something for several clients. It is cancelled once the last of them has disconnected.
    pub(crate) fn share<T>(&self, callers: Vec<Cancel>, work: impl FnOnce(&Cancel) -> T) -> T {
        let run = Cancel::default();
        let mut state = self.lock();
        state.shared.push(Shared { run: run.clone(), callers });
        // Clients that disconnected before it was listed.
        state.end_left();
        drop(state);
        let result = work(&run);
        self.lock().shared.retain(|shared| !shared.run.is_same(&run));
        result
    }

    /// A client disconnected: its job does not need to run.
    pub(crate) fn leave(&self, cancel: &Cancel) {
        // A run of this client alone ends here.
        cancel.cancel();
        let mut state = self.lock();
        state.end_left();
        state.left += 1;
        // Rare enough that the cost per disconnected client is small.
        if state.left * 2 >= state.line.len() {
            let swept = state.sweep();
            self.metrics.set_queue_depth(state.line.len());
            drop(state);
            drop(swept);
        }
    }

    /// Stops batching.
    pub(crate) fn never_join(&self) -> bool {
        let mut state = self.lock();
        let joined = state.sizes.joins();
        state.sizes.never_join();
        joined
    }

    /// Accepts no more jobs; waiting ones are still run.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
        self.full.notify_all();
        self.aside.notify_all();
    }

    /// A job is plain data, so a thread that panicked with the lock has broken nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a thread must be woken for new work; it then counts as woken.
    fn wakes(&mut self) -> bool {
        if self.idle == 0 {
            return false;
        }
        self.idle -= 1;
        self.woken += 1;
        true
    }

    /// The jobs of the next run.
    fn choose(&mut self, now: Instant) -> Taken<Job> {
        // Idle threads take their share, if the cost of a run is in its rows.
        let part = if self.sizes.splits() { self.line.rows().div_ceil(self.idle + 1) } else { usize::MAX };
        let Plan { rows, requests } = self.sizes.plan(self.line.rows());
        let most = rows.min(part);
        let mut rows = 0;
        self.line.take(|run, job| {
            if run.len() >= requests || (rows >= most && !run.is_empty()) {
                return Choice::Stop;
            }
            if job.is_left() || job.is_late(now) {
                return Choice::Drop;
            }
            match (run.first(), job.rows) {
                (None, own) => {
                    // A job that runs alone leaves no room for others.
                    rows = own.unwrap_or(usize::MAX);
                    Choice::Take
                }
                (Some(lead), Some(more)) if rows + more <= most && join::alike(lead, job) => {
                    rows += more;
                    Choice::Take
                }
                (Some(_), _) => Choice::Pass,
            }
        })
    }

    /// Removes the jobs of disconnected clients.
    fn sweep(&mut self) -> Vec<Job> {
        self.left = 0;
        self.line.sweep(Job::is_left)
    }

    /// Ends runs that nobody waits for any more.
    fn end_left(&mut self) {
        for shared in &self.shared {
            if shared.callers.iter().all(Cancel::is_cancelled) {
                shared.run.cancel();
            }
        }
    }
}
