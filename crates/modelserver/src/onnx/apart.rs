//! An ONNX model in a process of its own.
//!
//! The runtime is a library of other people's code: some inputs end the process that it is in. So inputs of which nobody
//! knows that they are harmless are tried here first ([`super::trial`]). A model that has ended a server on inputs like
//! any others ([`super::crash`]) is served from here, and so is one whose graph says that it may.
//!
//! The process is this program again. It ends when the socket between both is closed, however that comes about.

mod process;
pub(super) mod wire;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use inference::{Request, RequestedOutput};

pub use process::ONNX_CHILD;
pub(super) use process::{Program, Unanswered};

use self::{
    process::{Ended, Process},
    wire::{Kind, Open},
};
use super::crash::{self, Key};
use crate::{
    ServeError,
    runtime::{Call, Cancel, ModelRuntime, ONNX, RuntimeError, Signature, Sink},
};

/// How long a run may go on after it was told to end.
const GRACE: Duration = Duration::from_secs(2);

/// A model, loaded elsewhere.
#[derive(Debug)]
pub(super) struct Apart {
    program: Program,
    open: Open,
    process: Option<Process>,
    /// Whether the process has loaded the model.
    loaded: bool,
    /// How long it may take to be loaded.
    longest: Duration,
    signature: Signature,
    /// Why it is here, for whoever looks.
    note: Option<String>,
    /// Where a crash is noted, and whose it is.
    notes: Option<(PathBuf, Key)>,
}

impl Apart {
    /// Starts a process and loads the model there; blocks. `longest` bounds the loading.
    pub(super) fn open(
        program: Program,
        open: Open,
        longest: Duration,
        note: Option<String>,
    ) -> Result<Self, Unanswered> {
        let (process, signature) = (None, Signature { platform: ONNX, ..Signature::default() });
        let mut apart = Self { program, open, process, loaded: false, longest, signature, note, notes: None };
        apart.started(&Cancel::default())?;
        Ok(apart)
    }

    /// The same, where each crash makes later servers load the model apart.
    pub(super) fn noting_crashes(self, folder: PathBuf, key: Key) -> Self {
        Self { notes: Some((folder, key)), ..self }
    }

    /// Waits for the process to have loaded the model. A caller who leaves does not end the loading: the next one finds
    /// it further on.
    fn started(&mut self, cancel: &Cancel) -> Result<(), Unanswered> {
        let current = match self.process.take() {
            Some(current) => current,
            None => {
                self.loaded = false;
                Process::start(&self.program, &self.open, Instant::now() + self.longest)?
            }
        };
        let current = self.process.insert(current);
        if !self.loaded {
            match current.loaded(cancel) {
                Ok(signature) => (self.signature, self.loaded) = (signature, true),
                Err(_) if cancel.is_cancelled() => return Err(Unanswered::Refused(RuntimeError::Cancelled)),
                Err(error) => {
                    self.process = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// One run. If the process ends in it, the next run starts another.
    pub(super) fn run(&mut self, call: &Call<'_>) -> Result<Vec<inference::Tensor>, Unanswered> {
        self.started(call.cancel)?;
        let Self { process, signature, notes, .. } = self;
        let Some(current) = process.as_mut() else {
            return Err(Unanswered::NotStarted("the model's process is gone".to_owned()));
        };
        let outputs = call.outputs.iter().map(|place| RequestedOutput {
            name: signature.outputs[*place].name.clone(),
            parameters: Default::default(),
        });
        let request = Request { inputs: call.inputs.to_vec(), outputs: outputs.collect(), ..Request::default() };
        let made = exchange(current, &request, call.cancel);
        let crash = current.crash();
        if made.is_err() {
            if let (Some(signal), Some((folder, key))) = (crash, notes) {
                crash::remember(folder, *key, signal);
            }
            *process = None;
        }
        match made {
            Ok(Ok((outputs, learned))) => {
                if let Some(learned) = learned {
                    signature.outputs = learned;
                }
                Ok(outputs)
            }
            Ok(Err(error)) => Err(Unanswered::Refused(error)),
            Err(Ended::Itself(how)) if crash.is_some() => Err(Unanswered::Crashed(how)),
            Err(ended) => Err(ended.into()),
        }
    }
}

type Answered = Result<wire::Made, RuntimeError>;

fn exchange(process: &mut Process, request: &Request, cancel: &Cancel) -> Result<Answered, Ended> {
    process.send(Kind::Run, &wire::request(request))?;
    let mut until = None;
    let mut look = || {
        let now = Instant::now();
        match until {
            None if cancel.is_cancelled() => {
                until = Some(now + GRACE);
                wire::Look::Cancel
            }
            Some(until) if until <= now => wire::Look::End,
            _ => wire::Look::Wait,
        }
    };
    let (kind, head, body) = process.receive(&mut look)?;
    match kind {
        Kind::Answer => wire::read_answer(&body, head).map(Ok).map_err(Ended::Itself),
        Kind::Error => Ok(Err(wire::read_error(&body))),
        Kind::Open | Kind::Run | Kind::Cancel | Kind::Hello | Kind::Unloadable => {
            Err(Ended::Itself(format!("sent {kind:?} during a run")))
        }
    }
}

impl ModelRuntime for Apart {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    fn infer(&mut self, call: Call<'_>, sink: &mut dyn Sink) -> Result<(), RuntimeError> {
        let made = self.run(&call).map_err(|unanswered| match unanswered {
            Unanswered::Refused(error) => error,
            Unanswered::Crashed(_) | Unanswered::Ended(_) | Unanswered::Killed(_) if call.cancel.is_cancelled() => {
                RuntimeError::Cancelled
            }
            Unanswered::Killed(how) => RuntimeError::Failed(format!("the model's process {how}; it is started again")),
            Unanswered::Ended(how) => RuntimeError::Failed(on_these(&call, &how)),
            // The same inputs would do it again.
            Unanswered::Crashed(how) => RuntimeError::Rejected(on_these(&call, &how)),
            Unanswered::NotStarted(why) => RuntimeError::Unavailable(why),
        })?;
        sink.send(made);
        Ok(())
    }
}

fn on_these(call: &Call<'_>, how: &str) -> String {
    let shapes: Vec<_> = call.inputs.iter().map(|input| format!("`{}` {:?}", input.name, input.shape)).collect();
    format!(
        "ONNX Runtime itself {how} on these inputs ({}); the model runs in a process of its own, which is started again",
        shapes.join(", ")
    )
}

/// A model that cannot be loaded, in the words of all others.
pub(super) fn unloadable(unanswered: Unanswered, file: &std::path::Path) -> ServeError {
    let reason = match unanswered {
        Unanswered::Refused(error) => error.to_string(),
        Unanswered::Crashed(how) | Unanswered::Ended(how) => {
            format!("ONNX Runtime itself {how} while it loaded the model")
        }
        Unanswered::Killed(how) => format!("the model's process {how} while it loaded the model"),
        Unanswered::NotStarted(why) => why,
    };
    ServeError::Load { path: file.to_owned(), reason }
}

pub(super) use wire::Open as Opened;
