//! Python models; each instance is a worker process.
//!
//! The server starts the worker with the model's interpreter, sends it requests, and monitors it. A worker that dies,
//! hangs, leaks memory or sends invalid data is replaced, and its current requests fail.
//!
//! **Invariants:** a worker never outlives the server. Everything that it sends is validated before use. Nothing is
//! pickled.

mod check;
mod entry;
pub(crate) mod environment;
mod frame;
mod guard;
mod hello;
mod imports;
mod instance;
mod launch;
mod link;
mod mlflow;
mod output;
mod package;
mod variables;
mod watch;
mod worker;

pub(crate) use check::check_hints;
pub(crate) use entry::{Entry, EntryKind};
pub(crate) use instance::PythonModel;
pub(crate) use mlflow::MlflowWorker;
pub(crate) use variables::Uses;
