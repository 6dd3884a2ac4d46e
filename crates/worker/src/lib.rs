//! Makes what runs agree with what is wanted.
//!
//! A worker takes wake-ups from the queue; each one names a deployment and nothing else. Under the
//! deployment's lease it reads what is wanted and what runs, [`plan`]s one step, takes it, and writes what
//! became of it. A scan finds what no wake-up told of. So a lost message, a crash and a second worker share
//! one code path.
//!
//! **Invariant:** a worker holds nothing that another one could not do without: what it remembers only
//! spares it a wait. Ending one leaves every replica running.

mod config;
mod ends;
mod heartbeat;
mod http;
mod jobs;
mod logs;
mod metrics;
pub mod plan;
mod prune;
mod reconcile;
pub mod rollout;
mod run;
pub mod scaling;
mod scan;
mod shelf;
mod standing;
mod strays;

pub use config::Config;
pub use run::{WorkerError, run};
