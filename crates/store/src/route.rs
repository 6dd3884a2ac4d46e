//! The route table, versioned over all endpoints so that a gateway can ask for what came after.

use api::route::RouteChange;

use crate::{Store, StoreError};

/// Changes in the order of versions.
#[derive(Clone, Debug)]
pub struct RoutePage {
    /// The newest change of each endpoint that changed. Without tombstones where `after` was 0.
    pub changes: Vec<RouteChange>,
    /// The table's version up to which `changes` is complete.
    pub version: i64,
    /// Whether more is to be asked for after `version`.
    pub more: bool,
}

impl Store {
    /// What changed after version `after`, at most `limit` changes.
    pub async fn route_changes(&self, after: i64, limit: u32) -> Result<RoutePage, StoreError> {
        todo!("{after} {limit}")
    }
}
