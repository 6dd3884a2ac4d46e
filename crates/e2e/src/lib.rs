//! Drives the real binary from outside, as a user and as misfortune would.
//!
//! A test starts a [`Modelway`] in a folder of its own, on free ports, deploys the sample models, puts a
//! [`Load`] on it, and does what it wants to see survived. The folder is kept when the test fails.
//!
//! **Invariant:** nothing here calls Modelway's own code except the wire types; what is tested is the binary.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test harness fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests read their environment, and their tasks end with them")]
#![allow(clippy::print_stderr, reason = "what a failed test leaves behind is said on its output")]

mod disk;
mod load;
mod mlflow;
mod models;
mod modelway;
mod postgres;
mod processes;
mod release;
mod s3;
mod wait;

pub use disk::SmallDisk;
pub use load::{Load, LoadReport};
pub use mlflow::Mlflow;
pub use models::{Models, cache, iris_request, python, python_with_clients};
pub use modelway::{Answer, Modelway, Ports, Role, binary, client, free_port};
pub use postgres::Postgres;
pub use processes::{kill, peak_memory, processes_naming, raise_open_files};
pub use release::{Exchange, RELEASED, Release, dump_sqlite, restore_sqlite};
pub use s3::S3;
pub use wait::{PATIENCE, until, until_some};
