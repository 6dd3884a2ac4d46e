//! The node's cache of artefacts: fetches a model's files from where they are, checks them, and keeps them for
//! every process of the machine.
//!
//! Files on this machine are served where they stand, or from a copy for a revision, whose files must not change while
//! it lives ([`Cache::fetch_for_revision`]). All else is downloaded once for all processes: whoever
//! comes first holds a file lock on the address, the others wait for it and find the result. A download goes on
//! where it broke, also in another process after a crash. What is complete and checked is renamed to a folder
//! named by its digest, so that a reader never sees half of it. The least recently used go when the cache is
//! full, except those that a living process holds: [`Fetched`] is that hold, a shared lock that the kernel takes
//! back when the process dies.
//!
//! **Invariant:** nothing is ever written outside the cache's folder, whatever an archive or a bucket says; and
//! no link is ever made from what they say.

mod cache;
mod config;
mod digest;
mod download;
mod entry;
mod error;
mod lock;
mod mlflow;
mod place;
mod relative;
mod remote;
mod shelf;
mod unpack;

pub use cache::{Cache, Fetched, Seen};
pub use config::Config;
pub use digest::digest_of;
pub use error::ArtifactError;
