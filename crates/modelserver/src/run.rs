//! From a decoded request to its answer: the model, its queue, batching and the response cache.

pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod caller;
pub(crate) mod extras;
pub(crate) mod model;
pub(crate) mod probe;
pub(crate) mod queue;
pub(crate) mod tolerance;
pub(crate) mod validate;
