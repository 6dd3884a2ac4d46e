//! What is wrong with the settings.

use std::fmt;

/// One fault in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The source: a file, a variable, a flag.
    pub source: String,
    /// A sentence: what is wrong and what to do.
    pub detail: String,
}

/// All faults in the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub Vec<Fault>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings are invalid:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {}: {}", fault.source, fault.detail))
    }
}
