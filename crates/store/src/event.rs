//! The decision log.

use api::{DeploymentId, Event};

use crate::{Page, Store, StoreError};

impl Store {
    /// A page of events after `after`, oldest first, of one deployment or of all. Those of a deployment
    /// that is gone are still there.
    pub async fn event_list(
        &self,
        deployment: Option<DeploymentId>,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<Event>, StoreError> {
        todo!("{deployment:?} {after:?} {limit}")
    }
}
