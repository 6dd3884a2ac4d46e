//! The server's side: starts the process, and sees how it ends.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::ExitStatusExt as _},
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    LOOK_EVERY, Unanswered,
    wire::{self, Body, Kind, Look, Open},
};
use crate::{
    onnx::PLATFORM,
    runtime::{RuntimeError, Signature},
};

/// How long a process that closed its socket may take to end.
const LEAVING: Duration = Duration::from_secs(2);

/// The program and its words.
#[derive(Clone, Debug)]
pub(in crate::onnx) struct Program(pub(in crate::onnx) Vec<OsString>);

impl Program {
    /// What was said, else this program itself.
    pub(in crate::onnx) fn of(said: &[OsString]) -> Self {
        // Also where its file has been replaced meanwhile.
        let own = || vec!["/proc/self/exe".into(), super::ONNX_CHILD.into()];
        Self(if said.is_empty() { own() } else { said.to_vec() })
    }
}

/// How a process ended: what follows "the process".
#[derive(Debug)]
pub(super) struct Ended(pub(super) String);

/// A process with a model.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    socket: UnixStream,
}

impl Process {
    /// Starts one and waits until it has loaded the model.
    pub(super) fn start(
        Program(words): &Program,
        open: &Open,
        until: Instant,
    ) -> Result<(Self, Signature), Unanswered> {
        let failed = |e: io::Error| Unanswered::NotStarted(format!("a process for the model cannot be started: {e}"));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_read_timeout(Some(LOOK_EVERY)).map_err(failed)?;
        let (program, arguments) = words.split_first().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        if open.low_priority {
            // It is expected to crash.
            command.stderr(Stdio::null());
        }
        let child = command.spawn().map_err(failed)?;
        // With its end of the socket.
        drop(command);
        let mut process = Self { child, socket: ours };
        let ended = |Ended(how)| Unanswered::Ended(how);
        process.send(Kind::Open, &wire::json(open)).map_err(ended)?;
        let mut look = || if until <= Instant::now() { Look::End } else { Look::Wait };
        let (kind, _, body) = process.receive(&mut look).map_err(ended)?;
        match kind {
            Kind::Hello => {
                let signature = wire::read_hello(&body, PLATFORM).map_err(Unanswered::Ended)?;
                Ok((process, signature))
            }
            Kind::Unloadable => {
                let words = String::from_utf8_lossy(&body).into_owned();
                Err(Unanswered::Refused(RuntimeError::Failed(words)))
            }
            other @ (Kind::Open | Kind::Run | Kind::Cancel | Kind::Answer | Kind::Error) => {
                Err(Unanswered::Ended(format!("sent {other:?} before its signature")))
            }
        }
    }

    pub(super) fn send(&mut self, kind: Kind, body: &Body) -> Result<(), Ended> {
        wire::write(&mut self.socket, kind, body).map_err(|error| self.how_it_ended(&error))
    }

    /// The next frame. `look` says now and then what to do while there is none.
    pub(super) fn receive(&mut self, look: &mut dyn FnMut() -> Look) -> Result<(Kind, usize, Bytes), Ended> {
        let Ok(mut writer) = self.socket.try_clone() else { return Err(Ended("has no socket any more".to_owned())) };
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
                return Ended(match (status.signal(), status.code()) {
                    (Some(signal), _) => format!("was ended by {}", crate::onnx::crash::name(signal)),
                    (None, code) => format!("ended by itself with status {}", code.unwrap_or_default()),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ended(error.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
