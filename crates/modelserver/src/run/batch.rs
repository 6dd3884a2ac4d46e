//! From single requests to runs of the model.
//!
//! Requests wait in a [`mod@line`] that says whose turn it is. A model's thread that becomes free takes whatever
//! waits and can be run together, as much of it as [`size`] says, which learns from the [`cost`] of earlier
//! runs; it never waits for more unless it is told to. [`join`] makes one run's inputs of it and parts the
//! outputs; [`run`] is the thread. All but the last is pure: no clock, no lock.
//!
//! **Invariants:** every job that was taken in gets exactly one answer, unless its caller left. Rows of one
//! request are never in two runs, and nobody gets rows of another's.

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
    /// The places of the wanted outputs, in the order wanted.
    pub(crate) outputs: Arc<[usize]>,
    /// Those that mean something to the model.
    pub(crate) parameters: Parameters,
    /// Those of its inputs.
    pub(crate) input_parameters: InputParameters,
    /// The rows that may be joined with others'; `None`: it runs by itself.
    pub(crate) rows: Option<usize>,
    pub(crate) cancel: Cancel,
    pub(crate) answer: Answer,
    pub(crate) arrived: Instant,
    /// The time that it has, from its arrival on.
    pub(crate) time: Duration,
}

impl Job {
    /// Whether its caller has left.
    pub(crate) fn is_left(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Whether its time is over.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.arrived) >= self.time
    }

    /// Says that its time was over before it was its turn.
    pub(crate) fn expire(self) {
        self.answer.send(Err(InferError::TimedOut(self.time.as_millis())));
    }
}

/// Where the answers of a job go.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The only one; more are an error.
    One(oneshot::Sender<Answered>),
    /// Each as it comes.
    Each(mpsc::Sender<Answered>),
}

impl Answer {
    /// Sends the only answer, or an error in its place. The caller may have left meanwhile.
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
