//! The server's side: starts the process, and sees how it ends.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::OwnedFd,
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::wire::{self, Body, Kind, Look, Open};
use crate::{
    onnx::crash,
    runtime::{Cancel, ONNX, RuntimeError, Signature},
};

/// The argument that makes `modelway` the process of one ONNX model.
pub const ONNX_CHILD: &str = "onnx-child";

/// How often a run looks whether its caller still waits.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a process that closed its socket may take to end.
const LEAVING: Duration = Duration::from_secs(2);

/// The program and its words.
#[derive(Clone, Debug)]
pub(in crate::onnx) struct Program(pub(in crate::onnx) Vec<OsString>);

impl Program {
    /// What was said, else this program itself.
    pub(in crate::onnx) fn of(said: &[OsString]) -> Self {
        // Also where its file has been replaced meanwhile.
        let own = || vec!["/proc/self/exe".into(), ONNX_CHILD.into()];
        Self(if said.is_empty() { own() } else { said.to_vec() })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::onnx) enum Unanswered {
    /// The model's own word.
    Refused(RuntimeError),
    /// What was run has ended the process by a crash in native code.
    Crashed(String),
    /// What was run has ended the process otherwise, or it had to be ended for that.
    Ended(String),
    /// Somebody else has ended the process.
    Killed(String),
    /// There is no process to be had.
    NotStarted(String),
}

/// How a process ended: what follows "the process".
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By what it ran.
    Itself(String),
    /// By a signal that somebody or the kernel has sent, which says nothing of what it ran.
    Killed(String),
}

impl From<Ended> for Unanswered {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Itself(how) => Self::Ended(how),
            Ended::Killed(how) => Self::Killed(how),
        }
    }
}

/// A process with a model.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    socket: UnixStream,
    /// When the model has to be loaded.
    until: Instant,
    /// The crash that ended it.
    crash: Option<i32>,
}

impl Process {
    /// Starts one, which begins to load the model.
    pub(super) fn start(Program(words): &Program, open: &Open, until: Instant) -> Result<Self, Unanswered> {
        let failed = |e: io::Error| Unanswered::NotStarted(format!("a process for the model cannot be started: {e}"));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_read_timeout(Some(LOOK_EVERY)).map_err(failed)?;
        let (program, arguments) = words.split_first().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        // A signal to the server's group, such as that of Ctrl-C, is not for this process: it ends with its socket.
        command.process_group(0);
        if open.low_priority {
            // It is expected to crash.
            command.stderr(Stdio::null());
        }
        let child = command.spawn().map_err(failed)?;
        // With its end of the socket.
        drop(command);
        let mut process = Self { child, socket: ours, until, crash: None };
        process.send(Kind::Open, &wire::json(open))?;
        Ok(process)
    }

    /// Waits until it has loaded the model. A wait that is cancelled can be taken up again.
    pub(super) fn loaded(&mut self, cancel: &Cancel) -> Result<Signature, Unanswered> {
        let until = self.until;
        let mut look = || if cancel.is_cancelled() || until <= Instant::now() { Look::End } else { Look::Wait };
        let (kind, _, body) = self.receive(&mut look)?;
        match kind {
            Kind::Hello => wire::read_hello(&body, ONNX).map_err(Unanswered::Ended),
            Kind::Unloadable => {
                let words = String::from_utf8_lossy(&body).into_owned();
                Err(Unanswered::Refused(RuntimeError::Failed(words)))
            }
            other @ (Kind::Open | Kind::Run | Kind::Cancel | Kind::Answer | Kind::Error) => {
                Err(Unanswered::Ended(format!("sent {other:?} before its signature")))
            }
        }
    }

    /// The signal of the crash that ended it.
    pub(super) fn crash(&self) -> Option<i32> {
        self.crash
    }

    pub(super) fn send(&mut self, kind: Kind, body: &Body) -> Result<(), Ended> {
        wire::write(&mut self.socket, kind, body).map_err(|error| self.how_it_ended(&error))
    }

    /// The next frame. `look` says now and then what to do while there is none.
    pub(super) fn receive(&mut self, look: &mut dyn FnMut() -> Look) -> Result<(Kind, usize, Bytes), Ended> {
        let Ok(mut writer) = self.socket.try_clone() else {
            return Err(Ended::Itself("has no socket any more".to_owned()));
        };
        let mut look = || match look() {
            Look::Wait => Ok(()),
            Look::Cancel => wire::write(&mut writer, Kind::Cancel, &(0, Bytes::new())),
            Look::End => Err(io::Error::other("did not end in time")),
        };
        let read = wire::read(&mut self.socket, &mut look);
        read.map_err(|error| self.how_it_ended(&error))
    }

    fn how_it_ended(&mut self, error: &io::Error) -> Ended {
        let until = Instant::now() + LEAVING;
        let closed = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        );
        while closed && Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.crash = status.signal().filter(|signal| crash::is_crash(*signal));
                return how(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ended::Itself(error.to_string())
    }
}

fn how(status: ExitStatus) -> Ended {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let words = format!("was ended by {}", crash::name(signal));
            if crash::is_crash(signal) { Ended::Itself(words) } else { Ended::Killed(words) }
        }
        (None, code) => Ended::Itself(format!("ended by itself with status {}", code.unwrap_or_default())),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_crash_is_laid_to_what_was_run() {
        let of = |signal: i32| how(ExitStatus::from_raw(signal));
        assert_eq!(of(libc::SIGSEGV), Ended::Itself("was ended by SIGSEGV".to_owned()));
        assert_eq!(of(libc::SIGABRT), Ended::Itself("was ended by SIGABRT".to_owned()));
        assert_eq!(of(7 << 8), Ended::Itself("ended by itself with status 7".to_owned()));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL, libc::SIGHUP] {
            assert_eq!(of(signal), Ended::Killed(format!("was ended by signal {signal}")));
        }
    }
}
