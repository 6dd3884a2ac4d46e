//! What the server uses of its machine: CPUs, processes that descend from it, and memory.

pub(crate) mod group;
pub(crate) mod memory;
pub(crate) mod placement;
pub(crate) mod shared;
pub(crate) mod tree;
