//! The cache of artefacts on a machine: fetches the files of a model, checks them, and keeps them for all processes on
//! the machine.
//!
//! Local files are served in place, or from a copy for a revision, whose files must not change
//! ([`Cache::fetch_for_revision`]). All other files are downloaded once for all processes: the first process holds a
//! file lock on the address, and the others wait for the result. A broken download is resumed, even by another process
//! after a crash. When an artefact is complete and checked, it is renamed to a folder named after its digest, so that a
//! reader never sees a part of it. When the cache is full, the least recently used artefacts are removed, except those
//! in use by a running process: [`Fetched`] holds a shared lock, which the kernel releases when the process dies.
//!
//! **Invariant:** nothing is ever written outside the folder of the cache, whatever an archive or a bucket contains,
//! and no link is created from their content.

mod blocking;
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

pub use cache::{Cache, Fetched, see::Seen};
pub use config::Config;
pub use digest::digest_of;
pub use error::ArtifactError;
