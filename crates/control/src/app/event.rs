//! The decision log.

use api::{DeploymentId, Event};
use store::{Order, Page};

use super::App;
use crate::error::Error;

impl App {
    /// Events of one deployment or of all. A deployment that is gone has left its events; one that never
    /// was is refused.
    pub(crate) async fn event_list(
        &self,
        deployment: Option<DeploymentId>,
        order: Order,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<Event>, Error> {
        let page = self.store.event_list(deployment, order, after, limit).await?;
        if let (Some(id), None, true) = (deployment, after, page.items.is_empty()) {
            self.store.deployment_get(id).await?;
        }
        Ok(page)
    }
}
