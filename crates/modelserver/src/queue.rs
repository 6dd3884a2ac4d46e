//! The bounded queue before one model.
//!
//! The async side puts a job in and is refused at once when the queue is full; the model's own threads take
//! what waits. A thread that finds work does not sleep between jobs, and one is woken only if one sleeps, so
//! that under load nobody pays for a wake-up.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// A queue of `J`, first in, first out.
#[derive(Debug)]
pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
    work: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<J>,
    sleeping: usize,
    closed: bool,
}

impl<J> Queue<J> {
    pub(crate) fn new(limit: usize) -> Self {
        let state = State { jobs: VecDeque::new(), sleeping: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), limit }
    }

    /// Adds a job; gives it back if `limit` jobs wait already.
    pub(crate) fn push(&self, job: J) -> Result<(), J> {
        let mut state = self.lock();
        if state.jobs.len() >= self.limit || state.closed {
            return Err(job);
        }
        state.jobs.push_back(job);
        let wake = state.sleeping > 0;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Waits for a job. `None` once the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.sleeping += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
    }

    /// Lets no more jobs in; those that wait are still done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    /// How many jobs wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// A job is plain data, so a thread that died with the lock has broken nothing.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn a_full_queue_gives_the_job_back_at_once() {
        let queue = Queue::new(2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((queue.take(), queue.push(4)), (Some(1), Ok(())));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn a_closed_queue_hands_out_what_waits_and_then_ends_every_thread() {
        let queue = Arc::new(Queue::new(100));
        let taken: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || std::iter::from_fn(|| queue.take()).count())
            })
            .collect();
        for job in 0..50 {
            queue.push(job).unwrap();
        }
        queue.close();
        assert_eq!(queue.push(51), Err(51));
        let total: usize = taken.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(total, 50);
    }
}
