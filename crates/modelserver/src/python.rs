//! Python models, each instance in a worker process of its own.
//!
//! The server starts the worker in the interpreter that the model names, hands it requests, and watches it: one
//! that dies, hangs, leaks or sends nonsense is replaced, and costs the requests that it had.
//!
//! **Invariants:** a worker never outlives the server. Nothing that it sends is believed before it is checked.
//! Nothing is pickled.

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
