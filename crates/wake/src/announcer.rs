//! Sends hints beside the work of those who queue tasks.

use std::{sync::Arc, time::Duration};

use api::DeploymentId;
use base::Tasks;
use prometheus_client::metrics::counter::Counter;
use tokio::{sync::mpsc, time::timeout};

use crate::{WakeError, WakeUps};

/// How many ids may wait to be sent. Further ones are not sent.
const WAITING: usize = 1_024;
/// How many are sent at once.
const BATCH: usize = 256;
/// How long sending them may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes the ids of deployments whose tasks were queued, and sends hints of them. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Announcer {
    ids: mpsc::Sender<DeploymentId>,
    failed: Counter,
}

impl Announcer {
    /// Starts the task that sends. It ends with `tasks`; hints that wait then are lost.
    #[must_use]
    pub fn start(wake_ups: Arc<dyn WakeUps>, tasks: &Tasks) -> Self {
        let (ids, queued) = mpsc::channel(WAITING);
        let failed = Counter::default();
        tasks.spawn(send(wake_ups, queued, failed.clone(), tasks.clone()));
        Self { ids, failed }
    }

    /// Has a hint sent. Never waits and never fails: a hint that cannot be sent is counted.
    pub fn tell(&self, id: DeploymentId) {
        if self.ids.try_send(id).is_err() {
            self.failed.inc();
        }
    }

    /// Counts the hints that were not sent.
    #[must_use]
    pub fn failed(&self) -> Counter {
        self.failed.clone()
    }
}

async fn send(wake_ups: Arc<dyn WakeUps>, mut queued: mpsc::Receiver<DeploymentId>, failed: Counter, tasks: Tasks) {
    let mut ids = Vec::with_capacity(BATCH);
    loop {
        ids.clear();
        let count = tokio::select! {
            count = queued.recv_many(&mut ids, BATCH) => count,
            () = tasks.stopping() => return,
        };
        if count == 0 {
            return;
        }
        let sent = match timeout(PATIENCE, wake_ups.publish(&ids)).await {
            Ok(sent) => sent,
            Err(elapsed) => Err(WakeError { way: "a way that does not answer", source: elapsed.into() }),
        };
        if let Err(error) = sent {
            failed.inc_by(ids.len() as u64);
            let error = &error as &dyn std::error::Error;
            tracing::warn!(hints = ids.len(), error, "hints were not sent; workers find the tasks when they look");
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures::stream::BoxStream;

    use super::*;

    /// Fails, or never answers.
    struct Broken {
        answers: bool,
    }

    #[async_trait]
    impl WakeUps for Broken {
        async fn publish(&self, _: &[DeploymentId]) -> Result<(), WakeError> {
            if self.answers {
                return Err(WakeError { way: "broken", source: "not today".into() });
            }
            std::future::pending().await
        }

        fn listen(&self, _: &str) -> BoxStream<'static, DeploymentId> {
            Box::pin(futures::stream::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hints_that_cannot_be_sent_are_counted_and_keep_nobody() {
        for answers in [true, false] {
            let tasks = Tasks::new();
            let announcer = Announcer::start(Arc::new(Broken { answers }), &tasks);
            let told = WAITING as u64 * 3;
            for id in 1..=told {
                announcer.tell(DeploymentId(i64::try_from(id).expect("a small number")));
            }
            while announcer.failed().get() < told {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(announcer.failed().get(), told);
            assert!(tasks.stop_and_wait(Duration::from_secs(10)).await);
        }
    }
}
