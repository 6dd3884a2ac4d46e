//! Chooses the revision and the replica of a request.

pub(crate) mod replica;
pub(crate) mod split;
