//! A worker for the tests of the process backend: it starts and ends replicas without pause until somebody
//! kills it.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a program for tests only")]

use api::{DeploymentId, RevisionNumber};
use base::{Clock, Tasks};
use modelway_backend::{
    Backend, conformance,
    process::{Config, ProcessBackend},
};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let config = Config {
        data_dir: arguments.next().unwrap().into(),
        executable: Some(arguments.next().unwrap().into()),
        drain_ms: 1,
        ..Config::default()
    };
    let fence = conformance::fence(arguments.next().unwrap().parse().unwrap());
    let backend = ProcessBackend::open(config, Tasks::new(), Clock::system()).await.unwrap();
    let wanted = conformance::revision(DeploymentId(1), RevisionNumber(1), "file:///model");
    for turn in 0.. {
        backend.ensure(&wanted, [3, 1, 4, 0][turn % 4], &[], &fence).await.unwrap();
    }
}
