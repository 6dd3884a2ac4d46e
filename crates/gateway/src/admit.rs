//! Whether a request may come in: by what its head says, and by the bounds on what is in flight.

pub(crate) mod authorise;
pub(crate) mod limits;
