//! Hints within one process.

use std::sync::{Arc, Mutex, PoisonError};

use api::DeploymentId;
use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{WakeError, WakeUps, chosen};

/// How many hints may wait for one worker. Further ones are lost.
const WAITING: usize = 256;

/// Hints from the control plane to the worker of the same process. Clones are the same way.
#[derive(Clone, Debug, Default)]
pub struct Local(Arc<Mutex<Vec<Listener>>>);

#[derive(Debug)]
struct Listener {
    worker: String,
    hints: mpsc::Sender<DeploymentId>,
}

#[async_trait]
impl WakeUps for Local {
    async fn publish(&self, ids: &[DeploymentId]) -> Result<(), WakeError> {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !listener.hints.is_closed());
        for id in ids {
            let chosen = chosen(listeners.iter().map(|listener| listener.worker.as_str()), *id);
            if let Some(listener) = listeners.iter().find(|listener| Some(listener.worker.as_str()) == chosen) {
                // A worker with so many hints looks anyway.
                let _ = listener.hints.try_send(*id);
            }
        }
        Ok(())
    }

    fn listen(&self, worker: &str) -> BoxStream<'static, DeploymentId> {
        let (hints, heard) = mpsc::channel(WAITING);
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Listener { worker: worker.to_owned(), hints });
        ReceiverStream::new(heard).chain(futures::stream::pending()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Subject, suite};

    #[tokio::test]
    async fn hints_within_a_process_conform() {
        suite(async || Subject::of(Arc::new(Local::default()))).await;
    }
}
