//! Log lines on standard error: for people as text, for machines as JSON.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::config::{Faults, Section};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One readable line each, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
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
            faults.add("filter", format!("`{filter}`, which cannot be read: {reason}; {form}"));
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

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error(
        "telemetry.filter `{filter}` cannot be read: {reason}; write a level such as `info`, or `warn,modelway_gateway=debug`"
    )]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It was called before.
    #[error("the log is set up already")]
    Again,
}

/// Starts logging to standard error. Once in a process.
///
/// # Errors
/// [`TelemetryError::Filter`] for a filter that cannot be read, [`TelemetryError::Again`] for a second call.
pub fn init(config: &Config) -> Result<(), TelemetryError> {
    let filter = config.parsed()?;
    // A line that cannot be written, for the terminal is closed or the disk is full, is lost; it harms nothing else.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(std::io::stderr);
    match config.format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|_| TelemetryError::Again)
}
