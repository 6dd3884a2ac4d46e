//! The termination message of a server that cannot serve, for the process that started it.

use std::{io::Write as _, path::Path};

use api::replica::TerminationMessage;

use crate::{error::ServeError, repository::report::Reporter};

/// Writes the reason, as JSON, to the file that was named for it, and which files were found. What it cannot write it logs: the words on
/// standard error are still there.
pub(crate) fn write(file: Option<&Path>, error: &ServeError, reporter: &Reporter) {
    let Some(file) = file else { return };
    let TerminationMessage { code, message, .. } = error.termination();
    let message = TerminationMessage { code, message: reporter.name_the_address(message), files: reporter.files() };
    let written = serde_json::to_vec(&message).map_err(std::io::Error::from).and_then(|message| {
        let mut open = base::private::create(file)?;
        open.write_all(&message)
    });
    if let Err(error) = written {
        tracing::warn!(file = %file.display(), %error, "the termination message cannot be written");
    }
}
