//! One worker, as seen by the thread that runs the model: a socket, and shared memory.
//!
//! A run is one frame to the worker and one back, or several for a streaming model. The watcher starts and ends
//! processes; nothing here does.

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use rustix::{
    io::Errno,
    net::{
        RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, recv, send, sendmsg, shutdown,
        sockopt::{Timeout, set_socket_timeout},
    },
    process::Pid,
};

use super::{
    frame::{self, Body, DOCUMENT, IN_AREA, INLINE, KEPT, Kind, LAST, PREFIX, Prefix, Request, Wrong},
    link::{Link, Numbered, RunId},
};
use crate::{
    machine::shared::Area,
    runtime::{Call, RuntimeError, Signature, Sink, is_absent},
};

/// Maximum size of an answer.
const LARGEST_ANSWER: usize = 2 << 30;
/// Minimum size of shared memory, so that it is not created again for every request.
const SMALLEST_AREA: usize = 1 << 20;
/// Shared memory above this size is released after the run.
const LARGEST_KEPT: usize = 64 << 20;
/// How much longer than the request timeout a run without a deadline may take before its worker is given up.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(5);

/// How a run ended without an answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// The worker had ended before it got the run.
    NotBegun,
    /// It closed its socket, most likely because it ended.
    Gone,
    /// It cannot be used any more, for this reason.
    Useless(String),
}

/// A worker that has loaded the model.
#[derive(Debug)]
pub(super) struct Worker {
    generation: u64,
    pub(super) pid: Pid,
    socket: Arc<OwnedFd>,
    inputs: Option<Area>,
    outputs: Option<Area>,
    buffer: Box<[u8]>,
    message: BytesMut,
    run: u32,
    link: std::sync::Weak<Link<Worker>>,
}

impl Numbered for Worker {
    /// Which of the model's workers it is, counted from 1.
    fn generation(&self) -> u64 {
        self.generation
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // At the end of its socket it ends by itself.
        let _ = shutdown(&self.socket, Shutdown::Both);
        if let Some(link) = self.link.upgrade() {
            link.order(|orders| orders.retired = Some(self.generation));
        }
    }
}

impl Worker {
    /// A worker whose signature was read from this socket. `timeout` is the maximum time of a request.
    pub(super) fn new(
        generation: u64,
        pid: Pid,
        socket: Arc<OwnedFd>,
        timeout: Duration,
        link: &Arc<Link<Worker>>,
    ) -> rustix::io::Result<Self> {
        let patience = Some(timeout.saturating_add(BEYOND_TIMEOUT));
        set_socket_timeout(&socket, Timeout::Recv, patience)?;
        set_socket_timeout(&socket, Timeout::Send, patience)?;
        Ok(Self {
            generation,
            pid,
            socket,
            inputs: None,
            outputs: None,
            buffer: vec![0; frame::LARGEST].into(),
            message: BytesMut::new(),
            run: 0,
            link: Arc::downgrade(link),
        })
    }

    /// Runs the model once.
    pub(super) fn run(
        &mut self,
        call: &Call<'_>,
        signature: &Signature,
        request: &mut Request,
        sink: &mut dyn Sink,
    ) -> Result<Result<(), RuntimeError>, Broken> {
        if let Err(error) = request.lay_out(call, signature) {
            return Ok(Err(error));
        }
        self.run = self.run.wrapping_add(1);
        let id = RunId { generation: self.generation, run: self.run };
        self.ask(call, request)?;
        let link = self.link.clone();
        let hook = move || {
            if let Some(link) = link.upgrade() {
                link.order(|orders| orders.cancel = Some(id));
            }
        };
        let result = call.cancel.watch(hook, || self.answers(call, signature, sink));
        if let Some(link) = self.link.upgrade() {
            link.finish(id);
            if result.is_ok() {
                link.answer(self.generation);
            }
        }
        self.tidy()?;
        result
    }

    /// Sends the request.
    fn ask(&mut self, call: &Call<'_>, request: &Request) -> Result<(), Broken> {
        let mut prefix = Prefix { flags: request.flags, ..Prefix::new(Kind::Run, self.run, request.len()) };
        self.message.clear();
        if request.len() <= INLINE {
            self.message.extend_from_slice(&prefix.bytes());
            request.append_to(&mut self.message, call.inputs);
        } else {
            let mut area = match self.inputs.take() {
                Some(area) if area.len() >= request.len() => area,
                _ => self.share(frame::INPUTS, request.len())?,
            };
            let fits = request.write_to(&mut area, call.inputs);
            self.inputs = Some(area);
            if !fits {
                return Err(Broken::Useless("has too little shared memory for a request laid out in it".to_owned()));
            }
            prefix.flags |= IN_AREA;
            self.message.extend_from_slice(&prefix.bytes());
        }
        match self.send(&self.message) {
            Err(Broken::Gone) => Err(Broken::NotBegun),
            sent => sent,
        }
    }

    /// Reads frames until the run is over.
    fn answers(
        &mut self,
        call: &Call<'_>,
        signature: &Signature,
        sink: &mut dyn Sink,
    ) -> Result<Result<(), RuntimeError>, Broken> {
        let rows = signature.rows.then(|| rows_of(call)).flatten();
        let mut result = Ok(());
        loop {
            let (prefix, size) = self.receive()?;
            if prefix.run != self.run {
                return Err(Broken::Useless(format!("answered run {} during run {}", prefix.run, self.run)));
            }
            let over = match prefix.kind {
                Kind::Answer => {
                    // Everything after the first error is discarded.
                    if result.is_ok() && !call.cancel.is_cancelled() {
                        result = self.take_answer(&prefix, size, call, signature, rows, sink)?;
                        if result.is_err() && prefix.flags & LAST == 0 {
                            self.cancel();
                        }
                    }
                    if prefix.flags & (IN_AREA | LAST) == IN_AREA {
                        self.send(&Prefix::new(Kind::Taken, self.run, 0).bytes())?;
                    }
                    prefix.flags & LAST != 0
                }
                Kind::End => true,
                Kind::Error => {
                    if result.is_ok() {
                        result = Err(self.error(&prefix, size));
                    }
                    true
                }
                Kind::Need => {
                    // A too large answer is refused without using memory, as a failure of the model.
                    self.outputs = None;
                    if prefix.length <= LARGEST_ANSWER {
                        self.outputs = Some(self.share(frame::OUTPUTS, prefix.length)?);
                    } else {
                        self.unshare(frame::OUTPUTS)?;
                    }
                    false
                }
                kind @ (Kind::Run
                | Kind::Cancel
                | Kind::Area
                | Kind::Taken
                | Kind::Hello
                | Kind::Unloadable
                | Kind::Guard) => {
                    return Err(Broken::Useless(format!("sent a frame of kind {kind:?} during a run")));
                }
            };
            if over {
                if prefix.flags & KEPT != 0 && self.inputs.take().is_some() {
                    self.unshare(frame::INPUTS)?;
                }
                return Ok(if call.cancel.is_cancelled() { Err(RuntimeError::Cancelled) } else { result });
            }
        }
    }

    fn take_answer(
        &mut self,
        prefix: &Prefix,
        size: usize,
        call: &Call<'_>,
        signature: &Signature,
        rows: Option<i64>,
        sink: &mut dyn Sink,
    ) -> Result<Result<(), RuntimeError>, Broken> {
        let body = if prefix.flags & IN_AREA == 0 {
            Body::Inline(Bytes::copy_from_slice(&self.buffer[PREFIX..size]))
        } else {
            let area = self.outputs.as_ref().filter(|area| area.len() >= prefix.length);
            Body::Shared(area.ok_or_else(|| Broken::Useless("answered in memory that is not shared".to_owned()))?)
        };
        let read = if prefix.flags & DOCUMENT == 0 {
            frame::read_answer(&body, call.outputs, signature, rows)
        } else {
            frame::read_described(&body)
        };
        match read {
            Ok(outputs) => Ok(if sink.send(outputs) { Ok(()) } else { Err(RuntimeError::Cancelled) }),
            Err(Wrong::Answer(words)) => Ok(Err(RuntimeError::Failed(words))),
            Err(Wrong::Frame(words)) => Err(Broken::Useless(format!("sent {words}"))),
        }
    }

    fn error(&self, prefix: &Prefix, size: usize) -> RuntimeError {
        let words = String::from_utf8_lossy(&self.buffer[PREFIX..size]).into_owned();
        match prefix.detail {
            frame::INVALID_INPUT => RuntimeError::Rejected(words),
            frame::INTERRUPTED => RuntimeError::Cancelled,
            _ => RuntimeError::Failed(format!("the model failed: {words}")),
        }
    }

    /// Asks the watcher to end the run.
    fn cancel(&self) {
        if let Some(link) = self.link.upgrade() {
            let id = RunId { generation: self.generation, run: self.run };
            link.order(|orders| orders.cancel = Some(id));
        }
    }

    /// Releases large memory.
    fn tidy(&mut self) -> Result<(), Broken> {
        if self.inputs.take_if(|area| area.len() > LARGEST_KEPT).is_some() {
            self.unshare(frame::INPUTS)?;
        }
        if self.outputs.take_if(|area| area.len() > LARGEST_KEPT).is_some() {
            self.unshare(frame::OUTPUTS)?;
        }
        Ok(())
    }

    /// Creates shared memory of at least `needed` bytes, and gives it to the worker.
    fn share(&self, which: u16, needed: usize) -> Result<Area, Broken> {
        let failed = |e: Errno| Broken::Useless(format!("cannot be given shared memory of {needed} bytes: {e}"));
        let len = needed.checked_next_power_of_two().unwrap_or(needed).max(SMALLEST_AREA);
        let area = Area::new(len).map_err(failed)?;
        self.send(&Prefix { detail: which, ..Prefix::new(Kind::Area, self.run, len) }.bytes())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [area.descriptor()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        self.lend(len);
        let sent = sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL);
        sent.map_err(|e| self.broken(e))?;
        Ok(area)
    }

    /// Lets the worker release shared memory.
    fn unshare(&self, which: u16) -> Result<(), Broken> {
        self.lend(0);
        self.send(&Prefix { detail: which, ..Prefix::new(Kind::Area, self.run, 0) }.bytes())
    }

    /// Reports how much of the worker's memory belongs to the server.
    fn lend(&self, more: usize) {
        if let Some(link) = self.link.upgrade() {
            let areas = [&self.inputs, &self.outputs];
            link.lend(more + areas.into_iter().flatten().map(Area::len).sum::<usize>());
        }
    }

    fn send(&self, message: &[u8]) -> Result<(), Broken> {
        loop {
            match send(&self.socket, message, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// The next frame, and its size in the buffer.
    fn receive(&mut self) -> Result<(Prefix, usize), Broken> {
        loop {
            match recv(self.socket.as_fd(), &mut *self.buffer, RecvFlags::TRUNC) {
                Ok((0, _)) => return Err(Broken::Gone),
                Ok((size, sent)) if sent > size => {
                    return Err(Broken::Useless(format!("sent a frame of {sent} bytes")));
                }
                Ok((size, _)) => {
                    let prefix = Prefix::of_worker(&self.buffer[..size]);
                    let nonsense = || Broken::Useless("sent what is no frame".to_owned());
                    return prefix.map(|prefix| (prefix, size)).ok_or_else(nonsense);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn broken(&self, error: Errno) -> Broken {
        match error {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Broken::Gone,
            Errno::AGAIN => Broken::Useless("did not answer for longer than a request may take".to_owned()),
            other => Broken::Useless(format!("has a socket that fails: {other}")),
        }
    }
}

/// The number of rows of a call; `None` if its inputs differ in it.
fn rows_of(call: &Call<'_>) -> Option<i64> {
    let mut rows = call.inputs.iter().filter(|input| !is_absent(input)).map(|input| input.shape.first().copied());
    let first = rows.next()??;
    rows.all(|other| other == Some(first)).then_some(first)
}
