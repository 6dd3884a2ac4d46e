//! What an address of MLflow means at this moment.

use crate::place::Place;

/// The location of the files, and the resolved version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) place: Place,
    /// The location as text, equal for equal files.
    pub(crate) location: String,
    /// The version, if the address did not determine it.
    pub(crate) version: Option<u64>,
}
