//! The seam: how hints reach workers.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use api::DeploymentId;
use async_trait::async_trait;
use futures::stream::BoxStream;

/// Why hints were not sent. The workers find the tasks when they look the next time.
#[derive(Debug, thiserror::Error)]
#[error("no hint was sent by `{way}`")]
pub struct WakeError {
    /// The way on which it was tried, such as `postgres`.
    pub way: &'static str,
    /// What happened.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A way on which hints reach workers.
#[async_trait]
pub trait WakeUps: Send + Sync + 'static {
    /// Says that these deployments have tasks that are due. To be called after the transaction that queued them has
    /// committed. Each id goes to one of the workers that listen, usually to the same one each time ([`chosen`]); to none
    /// if nobody listens or that worker has too many hints already.
    ///
    /// # Errors
    /// [`WakeError`] if the way is not usable now. Some of the hints may have been sent.
    async fn publish(&self, ids: &[DeploymentId]) -> Result<(), WakeError>;

    /// The hints for one worker from now on. `worker` is the name under which it is in the database. The stream does not
    /// end by itself: where a connection is lost, it makes another one. What is published meanwhile may be lost.
    fn listen(&self, worker: &str) -> BoxStream<'static, DeploymentId>;
}

/// Which of some workers gets the hints of a deployment. When a worker comes or goes, only its own deployments move to
/// another one (rendezvous hashing). `None` if there are no workers.
pub fn chosen<'w>(workers: impl IntoIterator<Item = &'w str>, id: DeploymentId) -> Option<&'w str> {
    workers.into_iter().max_by_key(|worker| {
        let mut hash = DefaultHasher::new();
        (worker, id.0).hash(&mut hash);
        hash.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_is_chosen_for_its_share_and_keeps_it_when_another_one_leaves() {
        assert_eq!(chosen([], DeploymentId(1)), None);
        let share = |worker: &str| {
            let ids = (0..900).map(DeploymentId);
            ids.filter(|id| chosen(["a", "b", "c"], *id) == Some(worker)).collect::<Vec<_>>()
        };
        for worker in ["a", "b", "c"] {
            let ids = share(worker);
            assert!((200..400).contains(&ids.len()), "{worker}: {}", ids.len());
            let kept = ids.iter().filter(|id| chosen(["b", "a"], **id) == Some(worker)).count();
            assert_eq!(kept, if worker == "c" { 0 } else { ids.len() }, "{worker}");
        }
    }
}
