//! Compiles the protocol's definition without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/inference.proto");
    let files = protox::compile(["proto/inference.proto"], ["proto"])?;
    // Raw tensors stay slices of the message that carried them.
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}
