//! Parameters of requests, tensors and responses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Named extras of a message.
pub type Parameters = BTreeMap<String, Parameter>;

/// The value of a parameter: a string, a number or a boolean, as the protocol has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a parameter is a string, a number or a boolean")]
pub enum Parameter {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that only fits without a sign.
    Uint(u64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
}

impl Parameter {
    /// The boolean, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The whole number, if it is one and not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::Uint(value) => Some(*value),
            Self::Bool(_) | Self::Float(_) | Self::Text(_) => None,
        }
    }
}
