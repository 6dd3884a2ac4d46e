//! The code blocks of the documents, run as they are written.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn the_blocks_of_the_readme_work_as_written() {
    run(&["README.md"]);
}

#[test]
fn the_blocks_about_serving_work_as_written() {
    run(&["docs/serving.md", "docs/benchmarks.md", "docs/nulls.md"]);
}

#[test]
fn the_blocks_about_protocols_work_as_written() {
    run(&["docs/protocols.md"]);
}

#[test]
fn the_blocks_about_the_platform_work_as_written() {
    run(&["docs/platform.md", "docs/gateway.md"]);
}

#[test]
fn the_blocks_about_python_work_as_written() {
    run(&["docs/python-models.md", "python/README.md"]);
}

#[test]
fn the_blocks_about_the_sample_models_work_as_written() {
    run(&["models/README.md"]);
}

#[test]
#[ignore = "make test-long runs it"]
fn long_the_blocks_that_install_something_work_as_written() {
    run(&["--long", "docs/serving.md", "python/README.md"]);
}

#[test]
#[ignore = "make test-long runs it"]
fn long_the_blocks_that_need_mlflow_work_as_written() {
    run(&["--long", "README.md", "docs/nulls.md", "docs/python-models.md"]);
}

#[test]
fn the_blocks_for_contributors_can_be_read() {
    run(&["CONTRIBUTING.md", "bench/README.md", "bench/serve/README.md"]);
}

#[test]
fn no_document_is_left_out() {
    let known = include_str!("documents.rs");
    for document in std::fs::read_dir(checkout().join("docs")).unwrap() {
        let name = document.unwrap().file_name().into_string().unwrap();
        let blocks = || std::fs::read_to_string(checkout().join("docs").join(&name)).unwrap().contains("```");
        assert!(!name.ends_with(".md") || !blocks() || known.contains(&format!("docs/{name}")), "{name}");
    }
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout is there")
}

#[track_caller]
fn run(arguments: &[&str]) {
    let (options, documents): (Vec<&str>, Vec<&str>) =
        arguments.iter().copied().partition(|word| word.starts_with('-'));
    let checkout = checkout();
    let told = Command::new(modelway_e2e::python_with_clients())
        .arg(checkout.join("crates/e2e/tests/documents.py"))
        .args(options)
        .arg(&checkout)
        .args(documents)
        .env("MODELWAY_CACHE", modelway_e2e::cache())
        .env("MODELWAY_BINARY", modelway_e2e::binary())
        .env("PYTHONPATH", checkout.join("python/src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("`make setup` installs the clients");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}
