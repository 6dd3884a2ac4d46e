//! What every role needs before it can do its own work: tasks that shutdown waits for, a clock, settings,
//! telemetry, listening and calling over HTTP.
//!
//! **Invariant:** no word of the domain (deployment, model, route) occurs here.

pub mod client;
pub mod clock;
pub mod config;
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
