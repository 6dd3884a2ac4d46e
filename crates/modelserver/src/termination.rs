//! The termination message of a server that cannot serve, for the process that started it.

use std::{io::Write as _, path::Path};

use api::replica::TerminationMessage;

/// Writes the message, as JSON, to the configured file. A failure is only logged: the text on standard error still exists.
pub(crate) fn write(file: Option<&Path>, message: &TerminationMessage) {
    let Some(file) = file else { return };
    let written = serde_json::to_vec(message).map_err(std::io::Error::from).and_then(|message| {
        let mut open = base::private::create(file)?;
        open.write_all(&message)
    });
    if let Err(error) = written {
        tracing::warn!(file = %file.display(), %error, "the termination message cannot be written");
    }
}
