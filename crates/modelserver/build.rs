//! Compiles the definitions of the protocols without `protoc`.

use std::{env, fs, path::PathBuf};

#[allow(clippy::disallowed_methods, reason = "where Cargo wants the output is in the environment")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(["inference.proto", "health.proto"])?;
    // What clients are told that ask this server for its definitions.
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), descriptors)?;
    // Raw tensors stay slices of the message that carried them.
    tonic_prost_build::configure().bytes(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
