//! The Python package against the real binary: `modelway.serve`, its end, and the client.

use std::{path::Path, process::Command};

#[test]
fn a_model_of_a_running_python_process_is_served_and_asked() {
    let python = modelway_e2e::python();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let told = Command::new(&python)
        .args(["-W", "error", "-m", "unittest", "served"])
        .current_dir(folder.join("tests"))
        .env("PYTHONPATH", folder.join("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MODELWAY_BINARY", modelway_e2e::binary())
        .output();
    let told = told.unwrap_or_else(|e| panic!("{}: {e}; `make setup` installs it", python.display()));
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}
