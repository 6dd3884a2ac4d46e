//! What is counted and recorded of requests.

pub(crate) mod counters;
pub(crate) mod lost;
pub(crate) mod records;
pub(crate) mod usage;
