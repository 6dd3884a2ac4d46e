//! From a request that was read to its answer: the model's door, its queue, joined runs and the cache of answers.

pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod caller;
pub(crate) mod extras;
pub(crate) mod model;
pub(crate) mod probe;
pub(crate) mod queue;
pub(crate) mod tolerance;
pub(crate) mod validate;
