//! The types that the parts of Modelway exchange: ids, specifications, states, routes and error bodies.
//!
//! There are two kinds of type. Types that a *person* writes (a deployment, a manifest) are read by [`decode`], which
//! reports all faults at once with their JSON pointers. Types that *Modelway's roles* exchange (routes, replica status)
//! use plain serde.
//!
//! **Invariant:** no I/O, no clock, no randomness. Everything is a value or a pure function.

pub mod decode;
pub mod deployment;
pub mod ejected;
pub mod event;
pub mod fence;
pub mod id;
pub mod lost;
pub mod path;
pub mod problem;
pub mod quantity;
pub mod registry;
pub mod replica;
pub mod request_id;
pub mod revision;
pub mod route;
pub mod stray;
pub mod time;
pub mod traffic;
pub mod words;

pub use deployment::{Deployment, DeploymentSpec, DeploymentStatus, State};
pub use event::Event;
pub use fence::{Epoch, Fence, Origin};
pub use id::{DeploymentId, EndpointId, ReplicaId, RevisionNumber};
pub use problem::{Fault, Problem};
pub use revision::Revision;
pub use time::Timestamp;
