//! What the thread that runs a model and the thread that watches over its workers tell one another.

use std::{
    os::fd::OwnedFd,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io,
};

use crate::runtime::Up;

/// How long requests wait for another worker, counted from the end of the last.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a worker that is as good as dead may take to be so.
const DYING: Duration = Duration::from_secs(10);

/// One run of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunId {
    /// Which worker.
    pub(super) generation: u64,
    /// Which of its runs.
    pub(super) run: u32,
}

/// What the watcher is asked to do; each at most once at a time.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Nobody waits for this run any more.
    pub(super) cancel: Option<RunId>,
    /// This worker is of no use, for this reason.
    pub(super) end: Option<(u64, String)>,
    /// This worker has closed its socket, most likely because it is ending.
    pub(super) gone: Option<u64>,
    /// This worker has grown too large, and another is to be started beside it.
    pub(super) replace: Option<(u64, String)>,
    /// This worker was given up for its successor.
    pub(super) retired: Option<u64>,
    /// The model is not wanted any more.
    pub(super) stop: bool,
}

/// What is handed over: a worker, which has its number.
pub(super) trait Numbered {
    /// Which worker it is.
    fn generation(&self) -> u64;
}

#[derive(Debug)]
struct State<W> {
    orders: Orders,
    /// A worker that has loaded the model and waits to be taken.
    next: Option<W>,
    /// The last worker that ended, and how.
    ended: Option<(u64, String)>,
    /// Since when there is none, and why.
    down: Option<(Instant, String)>,
}

/// The link between the two.
#[derive(Debug)]
pub(super) struct Link<W> {
    state: Mutex<State<W>>,
    changed: Condvar,
    /// Readable when there are orders.
    pub(super) wake: OwnedFd,
    /// The newest worker that has loaded the model; 0 while there is none.
    newest: AtomicU64,
    /// Whether there is one, for whoever hands out requests.
    pub(super) up: Up,
    /// The last run that is over.
    finished: AtomicU64,
    /// The newest worker that has answered anything.
    answered: AtomicU64,
    /// Memory that the newest worker was lent, in bytes.
    lent: AtomicU64,
}

impl<W: Numbered> Link<W> {
    pub(super) fn new() -> io::Result<Self> {
        let state = State { orders: Orders::default(), next: None, ended: None, down: None };
        Ok(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            newest: AtomicU64::new(0),
            up: Up::down(),
            finished: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            lent: AtomicU64::new(0),
        })
    }

    /// Plain data, so that a thread that died with the lock has broken nothing.
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the watcher for something.
    pub(super) fn order(&self, ask: impl FnOnce(&mut Orders)) {
        ask(&mut self.lock().orders);
        // It fails only when it is readable anyway.
        let _ = io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The watcher takes its orders.
    pub(super) fn take_orders(&self) -> Orders {
        let _ = io::read(&self.wake, &mut [0u8; 8]);
        std::mem::take(&mut self.lock().orders)
    }

    /// The watcher has a worker that is ready.
    pub(super) fn offer(&self, worker: W) {
        let mut state = self.lock();
        self.newest.store(worker.generation(), Ordering::Release);
        // One that nobody has taken yet goes. It gives an order as it does, which takes the lock.
        let untaken = state.next.replace(worker);
        state.down = None;
        self.up.set(true);
        drop(state);
        drop(untaken);
        self.changed.notify_all();
    }

    /// The watcher tells of a worker's end. `down`: and there is no other.
    pub(super) fn tell_end(&self, generation: u64, words: String, down: bool) {
        let mut state = self.lock();
        let untaken = state.next.take_if(|next| next.generation() == generation);
        if down {
            let since = state.down.as_ref().map_or_else(Instant::now, |(since, _)| *since);
            state.down = Some((since, words.clone()));
            self.newest.store(0, Ordering::Release);
            self.up.set(false);
        }
        state.ended = Some((generation, words));
        drop(state);
        drop(untaken);
        self.changed.notify_all();
    }

    /// The newest worker that is ready; 0 while there is none.
    pub(super) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Waits a little for a worker; the error says why there is none.
    pub(super) fn next(&self) -> Result<W, String> {
        let mut state = self.lock();
        loop {
            if let Some(worker) = state.next.take() {
                return Ok(worker);
            }
            let left = match &state.down {
                Some((since, _)) => PATIENCE.saturating_sub(since.elapsed()),
                None => PATIENCE,
            };
            if left.is_zero() {
                return Err(state.down.as_ref().map(|(_, why)| why.clone()).unwrap_or_default());
            }
            let (locked, timeout) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = locked;
            if timeout.timed_out() && state.down.is_none() && state.next.is_none() {
                return Err("it was never started".to_owned());
            }
        }
    }

    /// How a worker ended that is ending or has ended.
    pub(super) fn how_it_ended(&self, generation: u64) -> String {
        let began = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some((ended, words)) = &state.ended
                && *ended >= generation
            {
                return words.clone();
            }
            let left = DYING.saturating_sub(began.elapsed());
            if left.is_zero() {
                return "does not end".to_owned();
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The model's thread is done with a run.
    pub(super) fn finish(&self, id: RunId) {
        self.finished.store(id.packed(), Ordering::Release);
    }

    /// A worker was there to answer to the end of a run.
    pub(super) fn answer(&self, generation: u64) {
        self.answered.fetch_max(generation, Ordering::AcqRel);
    }

    /// Whether it ever was.
    pub(super) fn has_answered(&self, generation: u64) -> bool {
        self.answered.load(Ordering::Acquire) >= generation
    }

    /// Says how much memory of the server's the worker has.
    pub(super) fn lend(&self, bytes: usize) {
        self.lent.store(bytes as u64, Ordering::Release);
    }

    /// How much that is.
    pub(super) fn lent(&self) -> u64 {
        self.lent.load(Ordering::Acquire)
    }

    /// Whether it is.
    pub(super) fn is_finished(&self, id: RunId) -> bool {
        self.finished.load(Ordering::Acquire) >= id.packed()
    }
}

impl RunId {
    /// Grows from run to run and from worker to worker.
    fn packed(self) -> u64 {
        self.generation << 32 | u64::from(self.run)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use rustix::{
        net::{AddressFamily, SocketFlags, SocketType, socketpair},
        process::getpid,
    };

    use super::{super::worker::Worker, *};

    #[test]
    fn a_worker_that_nobody_has_taken_can_be_replaced_and_can_end() {
        let link = Arc::new(Link::new().unwrap());
        let worker = |generation| {
            let (ours, _theirs) =
                socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
            Worker::new(generation, getpid(), Arc::new(ours), Duration::from_secs(1), &link).unwrap()
        };
        let workers = [worker(1), worker(2)];
        let (done, is_done) = mpsc::sync_channel(1);
        let offered = Arc::clone(&link);
        std::thread::spawn(move || {
            workers.into_iter().for_each(|worker| offered.offer(worker));
            offered.tell_end(2, "killed".to_owned(), true);
            done.send(()).unwrap();
        });
        assert!(is_done.recv_timeout(Duration::from_secs(20)).is_ok(), "it waits for itself");
        assert_eq!(link.how_it_ended(2), "killed");
        assert_eq!(link.take_orders().retired, Some(2));
    }
}
