//! Reconciles the actual state with the desired state.
//!
//! A worker takes wake-ups from the queue; each one contains the id of a deployment and nothing else. Under the lease
//! of the deployment it reads the desired and the actual state, [`plan`]s one step, takes it, and writes the result. A
//! scan finds changes without a wake-up. So a lost message, a crash and a second worker use the same code path.
//!
//! **Invariant:** a worker holds no state that another one would need; its memory only saves waits. Stopping a worker
//! leaves every replica running.

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
