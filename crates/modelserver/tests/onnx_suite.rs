//! The public ONNX backend suite: every case that ONNX Runtime runs is answered as it answers itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

extern crate modelway_modelserver as modelserver;

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "serve/support.rs"]
mod support;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base::memory::Allocator;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Server, config, python};
use tokio::process::Command;

/// What the program has too: where a run takes all memory, the server's own code still gets some.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// What the server may allocate here, the stacks of some thousand threads included, lest sizes be tried on the whole memory.
const MEMORY: u64 = 16 << 30;

/// How long the models may take to be loaded, and the clients to ask for all of them.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The folder of what the tests install.
#[allow(clippy::disallowed_methods, reason = "the cache is where the environment says")]
fn cache() -> PathBuf {
    match std::env::var_os("MODELWAY_CACHE") {
        Some(cache) => cache.into(),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/modelway"),
    }
}

/// Runs a script; its own words say what failed.
async fn run(python: &Path, script: &str, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx_suite").join(script);
    let output = Command::new(python).arg(&script).args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends in time");
    let output = output.unwrap_or_else(|e| panic!("{}: {e}; `scripts/setup.sh test` makes it", python.display()));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}:\n{said}");
    said
}

/// Says how much was done.
#[allow(clippy::print_stdout, reason = "for whoever reads a test's output")]
fn tell(counts: &str) {
    println!("{}", counts.trim());
}

/// A server with every `every`-th case from the `first` on, and the folder of them.
async fn server(first: usize, every: usize, carried: bool) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let (first, every) = (first.to_string(), every.to_string());
    let wheel = cache().join("onnx-suite.whl").display().to_string();
    let mut arguments = vec![place.as_str(), first.as_str(), every.as_str()];
    if carried {
        arguments.push(&wheel);
    }
    tell(&run(&python(), "cases.py", &arguments).await);
    let mut settings = config(&folder.path().join("models"));
    settings.python_dir = folder.path().join("kept");
    let Rlimit { current, maximum } = getrlimit(Resource::Data);
    let current = Some(current.map_or(MEMORY, |given| given.min(MEMORY)));
    setrlimit(Resource::Data, Rlimit { current, maximum }).unwrap();
    (Server::ready_within(settings, PATIENCE).await, folder)
}

async fn ask(server: &Server, folder: &tempfile::TempDir, part: &[&str]) {
    let (address, folder) = (server.url.strip_prefix("http://").unwrap(), folder.path().display().to_string());
    let arguments = [&[address, &folder], part].concat();
    tell(&run(&cache().join("clients/bin/python"), "ask.py", &arguments).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_cases_are_answered_as_the_library_answers_them() {
    let (server, folder) = server(0, 12, false).await;
    for part in [&["exact"][..], &["together"], &["odd", "20"]] {
        ask(&server, &folder, part).await;
    }
}

/// All cases, those with open dimensions too, in every form, alone and together, and with what no case has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make test-long runs it"]
async fn long_the_public_cases_are_answered_as_the_library_answers_them() {
    // More models are more than one process may hold in this memory.
    const SERVERS: usize = 6;
    for first in 0..SERVERS {
        let (server, folder) = server(first, SERVERS, true).await;
        for part in ["exact", "together", "odd", "exact"] {
            ask(&server, &folder, &[part]).await;
        }
    }
}
