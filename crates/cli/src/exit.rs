//! How a command ends badly: a sentence, what to do next, and a status that scripts can rely on.

use std::{error::Error, fmt, io, process::ExitCode};

use api::Problem;

/// The exit statuses, as `modelway --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Whoever read the output has seen enough (`modelway list | head`).
    Satisfied = 0,
    /// It was refused, or it was tried and did not work.
    Failed = 1,
    /// The command line or the settings cannot be understood.
    Usage = 2,
    /// Nobody answers at the other end.
    Unreachable = 3,
    /// It was accepted, but did not come about in time.
    TimedOut = 4,
    /// There is no such thing.
    NotFound = 5,
}

/// Why a command ended, and with which status.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub exit: Exit,
    /// What happened; may be several lines. Empty where there is nobody left to tell.
    pub message: String,
    /// What to do next.
    pub next: Option<String>,
}

impl Failure {
    /// A failure with a status.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), next: None }
    }

    /// It was refused, or it was tried and did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line cannot be understood.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// An error with the chain of its causes.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        Self::failed(chain(error))
    }

    /// A refusal of the control plane, with each fault of a payload.
    #[must_use]
    pub fn refused(problem: &Problem) -> Self {
        let mut message = match problem.faults.len() {
            0 => problem.detail.clone(),
            1 => "the control plane refuses this, because of one fault".to_owned(),
            many => format!("the control plane refuses this, because of {many} faults"),
        };
        for fault in &problem.faults {
            let at = if fault.pointer.is_empty() { "the document" } else { &fault.pointer };
            message.push_str(&format!("\n  {at}: {}", fault.detail));
        }
        Self::new(if problem.status == 404 { Exit::NotFound } else { Exit::Failed }, message)
    }
}

/// The messages of an error and its causes, each once: many errors show their cause themselves.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = inner.source();
    }
    message
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

/// Standard output and input are the only places from which a bare I/O error comes.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Satisfied, "");
        }
        Self::failed(format!("standard output cannot be written: {error}"))
    }
}
