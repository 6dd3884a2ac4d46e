//! Things that stand between a worker and its site and make its life hard.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use api::{DeploymentId, Epoch, Fence, ReplicaId, Revision, RevisionNumber, Timestamp};
use async_trait::async_trait;
use backend::{Backend, BackendError, Capabilities, Replica, fake::FakeBackend};
use bytes::Bytes;
use futures::stream::BoxStream;

/// A backend that takes its time to start anything, and is unavailable for the first few calls.
pub(crate) struct Hard {
    pub(crate) machine: FakeBackend,
    pub(crate) takes: Duration,
    pub(crate) refuses: AtomicU32,
}

#[async_trait]
impl Backend for Hard {
    fn scope(&self) -> String {
        self.machine.scope()
    }

    fn capabilities(&self) -> Capabilities {
        self.machine.capabilities()
    }

    async fn ensure(
        &self,
        revision: &Revision,
        want: u32,
        retire: &[ReplicaId],
        fence: &Fence,
    ) -> Result<(), BackendError> {
        let refused = self.refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if refused.is_ok() {
            return Err(BackendError::Unavailable { backend: "hard", source: "not now".into() });
        }
        tokio::time::sleep(self.takes).await;
        self.machine.ensure(revision, want, retire, fence).await
    }

    async fn observe(&self, id: DeploymentId) -> Result<Vec<Replica>, BackendError> {
        self.machine.observe(id).await
    }

    async fn observe_all(&self) -> Result<Vec<Replica>, BackendError> {
        self.machine.observe_all().await
    }

    async fn take_over(
        &self,
        id: DeploymentId,
        replicas: &[(ReplicaId, Timestamp)],
        fence: &Fence,
    ) -> Result<(), BackendError> {
        self.machine.take_over(id, replicas, fence).await
    }

    async fn remove(
        &self,
        id: DeploymentId,
        revision: Option<RevisionNumber>,
        fence: &Fence,
    ) -> Result<(), BackendError> {
        self.machine.remove(id, revision, fence).await
    }

    async fn revive(&self, id: DeploymentId, epoch: &Epoch) -> Result<Option<Timestamp>, BackendError> {
        self.machine.revive(id, epoch).await
    }

    async fn end_stray(&self, replica: &ReplicaId, ours: &Epoch) -> Result<(), BackendError> {
        self.machine.end_stray(replica, ours).await
    }

    fn changes(&self) -> BoxStream<'static, DeploymentId> {
        self.machine.changes()
    }

    async fn logs(
        &self,
        replica: &ReplicaId,
        tail: usize,
        follow: bool,
    ) -> Result<Option<BoxStream<'static, std::io::Result<Bytes>>>, BackendError> {
        self.machine.logs(replica, tail, follow).await
    }

    async fn shutdown(&self, patience: Duration, epoch: &Epoch) -> Result<(), BackendError> {
        self.machine.shutdown(patience, epoch).await
    }
}
