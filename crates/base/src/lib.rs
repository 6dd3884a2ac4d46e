//! The basis of every role: tasks that shutdown waits for, a clock, settings, telemetry, HTTP servers and clients.
//!
//! **Invariant:** this crate knows no domain term (deployment, model, route).

pub mod client;
pub mod clock;
pub mod config;
pub mod error;
pub mod grpc;
pub mod guard;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod private;
pub mod serve;
pub mod task;
pub mod telemetry;
pub mod visible;

pub use clock::Clock;
pub use task::Tasks;
