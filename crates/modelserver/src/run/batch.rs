//! Batching: combines requests into runs of the model.
//!
//! Requests wait in a [`mod@line`] that decides their order. When a thread of the model becomes free, it takes the
//! waiting requests that can run together, up to the batch size from [`size`], which uses the measured [`cost`] of
//! earlier runs. It waits for more only if a setting says so. [`join`] combines the inputs and splits the outputs;
//! [`run`] is the thread. All modules except the last are pure: no clock, no lock.
//!
//! **Invariants:** every accepted job gets exactly one answer, unless its client disconnected. The rows of one request
//! are never split over two runs, and nobody gets the rows of another request.

pub(crate) mod cost;
pub(crate) mod join;
pub(crate) mod line;
pub(crate) mod run;
pub(crate) mod size;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use inference::{InputParameters, Parameters, Tensor};
use tokio::sync::{mpsc, oneshot};

use crate::{error::InferError, runtime::Cancel};

/// What a caller gets.
pub(crate) type Answered = Result<Vec<Tensor>, InferError>;

/// One request on its way through the line.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) inputs: Vec<Tensor>,
    /// The positions of the requested outputs, in the requested order.
    pub(crate) outputs: Arc<[usize]>,
    /// The parameters for the model.
    pub(crate) parameters: Parameters,
    /// The parameters of its inputs.
    pub(crate) input_parameters: InputParameters,
    /// The rows that may be joined with others; `None`: it runs alone.
    pub(crate) rows: Option<usize>,
    pub(crate) cancel: Cancel,
    pub(crate) answer: Answer,
    pub(crate) arrived: Instant,
    /// Its timeout, from its arrival.
    pub(crate) time: Duration,
}

impl Job {
    /// Whether its client has disconnected.
    pub(crate) fn is_left(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Whether it has timed out.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.arrived) >= self.time
    }

    /// Answers that it timed out in the queue.
    pub(crate) fn expire(self) {
        self.answer.send(Err(InferError::TimedOut(self.time.as_millis())));
    }
}

/// The receiver of the answers of a job.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A single answer; a second one is an error.
    One(oneshot::Sender<Answered>),
    /// Each answer as it is produced.
    Each(mpsc::Sender<Answered>),
}

impl Answer {
    /// Sends the single answer, or an error instead. The client may have disconnected.
    pub(crate) fn send(self, answered: Answered) {
        match self {
            Self::One(answer) => {
                let _ = answer.send(answered);
            }
            Self::Each(answers) => {
                let _ = answers.try_send(answered);
            }
        }
    }
}
