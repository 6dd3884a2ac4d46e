//! Forwards a request to a replica, retries it at another one if necessary, and returns the answer to the client.

pub(crate) mod attempts;
pub(crate) mod ejection;
pub(crate) mod flight;
pub(crate) mod gateway;
pub(crate) mod head;
pub(crate) mod lane;
pub(crate) mod line;
pub(crate) mod loss;
pub(crate) mod receive;
pub(crate) mod reply;
