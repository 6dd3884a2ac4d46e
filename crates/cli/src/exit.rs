//! How a command fails: an error text, what to do next, and a stable exit status for scripts.

use std::{error::Error, fmt, io, process::ExitCode};

use api::{Problem, decode::MORE_FAULTS};
use base::{error::chain, visible};

/// The exit statuses, as `modelway --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The reader of the output has closed it (`modelway list | head`).
    Satisfied = 0,
    /// It was refused, or it failed.
    Failed = 1,
    /// The command line or the settings are invalid.
    Usage = 2,
    /// The server cannot be reached.
    Unreachable = 3,
    /// It was accepted, but did not complete in time.
    TimedOut = 4,
    /// It does not exist.
    NotFound = 5,
}

/// Why a command failed, and its exit status.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub exit: Exit,
    /// The error text, possibly with several lines. Empty if nobody can read it.
    pub message: String,
    /// What to do next.
    pub next: Option<String>,
}

impl Failure {
    /// A failure with a status.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), next: None }
    }

    /// It was refused, or it failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line is invalid.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// An error with the chain of its causes.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        Self::failed(chain(error))
    }

    /// An error of the control plane, with all faults of a payload.
    #[must_use]
    pub fn refused(problem: &Problem) -> Self {
        let mut message = match problem.faults.len() {
            0 => visible::part(&problem.detail),
            1 => "the control plane refuses this, because of one fault".to_owned(),
            _ if problem.faults.last().is_some_and(|last| last.code == MORE_FAULTS) => {
                "the control plane refuses this, because of many faults".to_owned()
            }
            many => format!("the control plane refuses this, because of {many} faults"),
        };
        for fault in &problem.faults {
            let at = if fault.pointer.is_empty() { "the document".into() } else { visible::line(&fault.pointer) };
            message.push_str(&format!("\n  {at}: {}", visible::part(&fault.detail)));
        }
        Self::new(if problem.status == 404 { Exit::NotFound } else { Exit::Failed }, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.next.as_ref().map_or(Ok(()), |next| write!(f, "\n\n{next}"))
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(failure.exit as u8)
    }
}

/// Only standard output and input produce a bare I/O error.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Satisfied, "");
        }
        Self::failed(format!("standard output cannot be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use api::Fault;

    use super::*;

    fn problem(status: u16, faults: Vec<Fault>) -> Problem {
        Problem { status, title: "x".into(), code: "x".into(), detail: "the name is taken".into(), faults }
    }

    #[test]
    fn a_refusal_shows_every_fault_with_its_pointer() {
        let fault =
            |pointer: &str| Fault { pointer: pointer.into(), code: "invalid".into(), detail: "it is wrong".into() };
        let failure = Failure::refused(&problem(422, vec![fault("/model/version"), fault("")])).next("Mend it.");
        assert_eq!(
            failure.to_string(),
            "error: the control plane refuses this, because of 2 faults\n  /model/version: it is wrong\n  \
             the document: it is wrong\n\nMend it."
        );
        assert_eq!(failure.exit, Exit::Failed);
    }

    #[test]
    fn what_is_not_there_has_a_status_of_its_own() {
        let failure = Failure::refused(&problem(404, Vec::new()));
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::NotFound, "the name is taken"));
    }

    #[test]
    fn a_reader_who_has_seen_enough_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Satisfied, ""));
        assert_eq!(Failure::from(io::Error::other("full")).exit, Exit::Failed);
    }
}
