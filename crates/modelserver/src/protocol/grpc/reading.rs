//! Counts clients that leave in the middle of the message of a prediction. Which model it is for is not known by then.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tonic::{Code, Status};

use crate::metrics::Metrics;

/// A message that is being read. Dropping it before it is complete means that its client has left.
#[derive(Debug)]
pub(super) struct Reading<M: AsRef<Metrics> = Arc<Metrics>> {
    metrics: M,
    ended: AtomicBool,
}

impl<M: AsRef<Metrics>> Reading<M> {
    pub(super) fn new(metrics: M) -> Self {
        Self { metrics, ended: AtomicBool::new(false) }
    }

    /// All of the message is there; who leaves now is counted with the model.
    pub(super) fn complete(&self) {
        self.ended.store(true, Relaxed);
    }

    /// The message could not be read.
    pub(super) fn broke_off(&self, status: &Status) {
        self.ended.store(status.code() != Code::Cancelled, Relaxed);
    }
}

impl<M: AsRef<Metrics>> Drop for Reading<M> {
    fn drop(&mut self) {
        if !self.ended.load(Relaxed) {
            self.metrics.as_ref().client_left();
        }
    }
}
