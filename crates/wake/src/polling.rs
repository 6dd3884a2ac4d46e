//! No hints: workers only look.

use api::DeploymentId;
use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};

use crate::{WakeError, WakeUps};

/// Sends nothing. Workers find tasks when they look the next time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Polling;

#[async_trait]
impl WakeUps for Polling {
    async fn publish(&self, _: &[DeploymentId]) -> Result<(), WakeError> {
        Ok(())
    }

    fn listen(&self, _: &str) -> BoxStream<'static, DeploymentId> {
        futures::stream::pending().boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::conformance::{Subject, harmless};

    #[tokio::test]
    async fn sending_nothing_harms_nobody() {
        harmless(async || Subject::of(Arc::new(Polling))).await;
    }
}
