//! What every role needs before it can do its own work: tasks that shutdown waits for, a clock, settings,
//! telemetry, listening and calling over HTTP.
//!
//! **Invariant:** no word of the domain (deployment, model, route) occurs here.

pub mod clock;
pub mod task;

pub use clock::Clock;
pub use task::Tasks;
