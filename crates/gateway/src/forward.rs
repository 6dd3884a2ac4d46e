//! There and back: a request to a replica, to another one where the first did not answer it, and the answer to the
//! client.

pub(crate) mod attempts;
pub(crate) mod flight;
pub(crate) mod gateway;
pub(crate) mod head;
pub(crate) mod lane;
pub(crate) mod line;
pub(crate) mod loss;
pub(crate) mod receive;
pub(crate) mod reply;
