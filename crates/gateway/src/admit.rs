//! Admission of a request: checks of its header, and limits on requests in flight and memory.

pub(crate) mod authorise;
pub(crate) mod limits;
