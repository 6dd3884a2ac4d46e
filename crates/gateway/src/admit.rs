//! Whether a request may come in: today the bounds on what is in flight.

pub(crate) mod limits;
