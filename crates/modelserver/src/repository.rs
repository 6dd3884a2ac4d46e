//! Models that come and go while the server runs: which there are, how they stand, loading and unloading.

mod declared;
mod described;
mod index;
mod request;

pub(crate) use declared::Declared;
pub(crate) use described::{
    ConfigTensor, DynamicBatching, InstanceGroup, ModelConfig, ResponseCache, Text, TransactionPolicy, VersionPolicy,
};
pub(crate) use index::{IndexEntry, ModelState};
pub(crate) use request::LoadRequest;
