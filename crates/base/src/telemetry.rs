//! Log lines on standard error, as text for people or as JSON for machines.

use std::io::{self, IsTerminal as _, Write};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Faults, Section},
    visible,
};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One text line each, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The log settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug` or `trace`, for all or by module: `warn,modelway_gateway=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self { filter: "warn".to_owned(), format: Format::Text }
    }
}

impl Section for Config {
    fn check(&self, faults: &mut Faults) {
        if let Err(TelemetryError::Filter { filter, reason }) = self.parsed() {
            let form = "write a level such as `info`, or `warn,modelway_gateway=debug`";
            faults.add("filter", format!("`{filter}`, which is invalid: {reason}; {form}"));
        }
    }
}

impl Config {
    fn parsed(&self) -> Result<EnvFilter, TelemetryError> {
        EnvFilter::builder()
            .parse(&self.filter)
            .map_err(|error| TelemetryError::Filter { filter: self.filter.clone(), reason: error.to_string() })
    }
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error(
        "telemetry.filter `{filter}` is invalid: {reason}; write a level such as `info`, or `warn,modelway_gateway=debug`"
    )]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It was called before.
    #[error("logging has already been started")]
    Again,
}

/// Starts logging to standard error. May be called once per process.
///
/// # Errors
/// [`TelemetryError::Filter`] for an invalid filter, [`TelemetryError::Again`] for a second call.
pub fn init(config: &Config) -> Result<(), TelemetryError> {
    let filter = config.parsed()?;
    // A line that cannot be written, because the terminal is closed or the disk is full, is lost without other effects.
    let format = config.format;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(move || Visible { format, to: io::stderr() });
    match config.format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|_| TelemetryError::Again)
}

/// Writes log lines so that text from models cannot control the terminal. Each write is one line. The colours are the
/// formatter's own; it escapes the values itself.
struct Visible<W> {
    format: Format,
    to: W,
}

impl<W: Write> Write for Visible<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        let line = line.trim_end_matches('\n');
        let line = match self.format {
            Format::Text => visible::coloured_line(line),
            Format::Json => visible::json(line),
        };
        self.to.write_all(format!("{line}\n").as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, line: &str) -> String {
        let mut writer = Visible { format, to: Vec::new() };
        writer.write_all(line.as_bytes()).expect("it is written");
        String::from_utf8(writer.to).expect("text")
    }

    #[test]
    fn an_event_is_one_line_and_keeps_the_colours_of_the_formatter() {
        assert_eq!(
            written(Format::Text, "\x1b[2mWARN\x1b[0m a\nb\rc\u{202e}\n"),
            "\x1b[2mWARN\x1b[0m a\\nb\\rc\\u{202e}\n"
        );
        assert_eq!(written(Format::Json, "{\"a\":\"\u{202e}\u{9b}\"}\n"), "{\"a\":\"\\u202e\\u009b\"}\n");
    }
}
