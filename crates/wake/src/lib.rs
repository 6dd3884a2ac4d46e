//! Hints that wake workers.
//!
//! The queue of tasks is in SQL. Workers look there many times a second, so every task is found without a hint. A hint
//! makes one worker look at once. It carries the id of a deployment and nothing else. A hint that is lost, repeated or
//! late costs latency only.
//!
//! [`WakeUps`] is the seam; [`conformance`] is what each implementation must do. [`Announcer`] is how hints are sent:
//! whoever queues a task never waits for them.

mod announcer;
pub mod conformance;
mod hint;
mod local;
mod polling;

pub use announcer::Announcer;
pub use hint::{WakeError, WakeUps, chosen};
pub use local::Local;
pub use polling::Polling;
