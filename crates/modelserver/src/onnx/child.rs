//! The process's side: loads the model that it is told, and runs what it is asked.

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use bytes::Bytes;
use inference::Request;
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};

use super::apart::wire::{self, Kind, Open};
use crate::{
    onnx::{OnnxModel, external, graph, library},
    runtime::{Call, Cancel, Last, ModelRuntime as _, Purpose, RuntimeError},
};

/// What goes to the thread that runs the model.
type Job = (Request, Cancel);

/// Serves one ONNX model to the process that started this one, over standard input, until that closes it. Does nothing
/// if standard input is no socket.
pub fn onnx_child() {
    // Whoever started it sees that it ended.
    let _ = serve();
}

fn serve() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.peer_addr()?;
    let mut reader = socket.try_clone()?;
    let mut wait = || Ok(());
    let (Kind::Open, _, body) = wire::read(&mut reader, &mut wait)? else { return Ok(()) };
    let open: Open = serde_json::from_slice(&body)?;
    limit(&open);
    let running: &'static Mutex<Cancel> = Box::leak(Box::default());
    let (jobs, taken) = mpsc::sync_channel::<Job>(1);
    // The process ends with either thread, also where the model's panics: the server sees only that.
    let until_it_ends = move || {
        let _ended = EndsTheProcess;
        work(socket, &open, &taken);
    };
    thread::Builder::new().name("model".to_owned()).spawn(until_it_ends)?;
    loop {
        match wire::read(&mut reader, &mut wait)? {
            (Kind::Run, head, body) => {
                let request = wire::read_request(&body, head).map_err(io::Error::other)?;
                let cancel = Cancel::default();
                running.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&cancel);
                jobs.send((request, cancel)).map_err(io::Error::other)?;
            }
            (Kind::Cancel, ..) => running.lock().unwrap_or_else(PoisonError::into_inner).cancel(),
            _ => return Ok(()),
        }
    }
}

/// Ends the process where it is dropped.
struct EndsTheProcess;

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        std::process::exit(i32::from(thread::panicking()));
    }
}

/// Bounds what this process may take. What cannot be bounded is not.
fn limit(open: &Open) {
    base::memory::bound(getrlimit(Resource::Data).current.map_or(open.memory, |given| given.min(open.memory)));
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    if open.low_priority {
        let _ = nice(19);
    }
}

fn work(mut socket: UnixStream, open: &Open, jobs: &mpsc::Receiver<Job>) {
    let loaded = library::runtime(open.library.as_deref()).and_then(|runtime| {
        let graph = graph::Model::read(&open.file);
        OnnxModel::load_here(&runtime, &open.file, external::names(&open.file)?, graph, open.threads, None)
    });
    let mut model = match loaded {
        Ok(model) => model.with_largest(open.largest),
        Err(error) => {
            // Of a model that cannot be loaded the server itself says the path.
            let words = if let crate::ServeError::Load { reason, .. } = error { reason } else { error.to_string() };
            let _ = wire::write(&mut socket, Kind::Unloadable, &(0, Bytes::from(words)));
            return;
        }
    };
    if wire::write(&mut socket, Kind::Hello, &wire::hello(model.signature())).is_err() {
        return;
    }
    while let Ok((request, cancel)) = jobs.recv() {
        let known = model.signature().outputs.clone();
        let (kind, body) = match run(&mut model, &request, &cancel) {
            Ok(outputs) => {
                let learned = Some(&model.signature().outputs).filter(|outputs| **outputs != known);
                (Kind::Answer, wire::answer((outputs, learned.cloned())))
            }
            Err(error) => (Kind::Error, wire::error(error)),
        };
        if wire::write(&mut socket, kind, &body).is_err() {
            return;
        }
    }
}

fn run(model: &mut OnnxModel, request: &Request, cancel: &Cancel) -> Result<Vec<inference::Tensor>, RuntimeError> {
    let outputs = &model.signature().outputs;
    let place = |wanted: &inference::RequestedOutput| outputs.iter().position(|output| output.name == wanted.name);
    let places: Vec<usize> = request.outputs.iter().filter_map(place).collect();
    let mut last = Last::default();
    let call = Call {
        inputs: &request.inputs,
        outputs: &places,
        parameters: &request.parameters,
        input_parameters: &request.input_parameters,
        purpose: Purpose::Request,
        cancel,
    };
    model.infer(call, &mut last)?;
    last.0.ok_or_else(|| RuntimeError::Failed("the model made nothing".to_owned()))
}
