//! Where a request goes: to which revision, and to which of its replicas.

pub(crate) mod replica;
pub(crate) mod split;
