//! Small commands without a server or a client.

use std::{io::Write as _, path::Path};

use serde_json::json;

use crate::{
    args::{Cli, Completion, Version},
    exit::Failure,
    output::show,
};

/// Prints the completion script of a shell.
///
/// # Errors
/// The reader has closed the output.
pub fn completion(args: &Completion) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::words(), "modelway", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}

/// Prints the version.
///
/// # Errors
/// The reader has closed the output.
pub fn version(args: &Version) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    show(args.output.output, &json!({"version": version}), || format!("modelway {version}\n"))
}

/// Prints the digest of a model's files.
///
/// # Errors
/// A file that cannot be read.
pub async fn digest(path: &Path) -> Result<String, Failure> {
    let place = path.to_owned();
    let digest = tokio::task::spawn_blocking(move || artifact::digest_of(&place)).await;
    let digest = digest.map_err(|error| Failure::of(&error))?;
    digest.map_err(|error| Failure::failed(format!("{} cannot be read: {error}", path.display())))
}
