//! What is known of a process that is being followed.

use api::{
    Timestamp,
    replica::{ReplicaState, SelfReport},
    revision::FoundFiles,
};
use tokio::sync::watch;

use super::{identity::Identity, slot::Run};

/// A watched process.
#[derive(Debug)]
pub(super) struct Watch {
    /// The identity of the process.
    pub(super) process: Identity,
    pub(super) live: watch::Receiver<Live>,
    pub(super) stop: watch::Sender<Option<Timestamp>>,
}

/// What is known about a process besides its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// Whether there was an attempt to reach it.
    pub(super) tried: bool,
    /// Its last reported state; `None` if it has sent no report to this process.
    pub(super) state: Option<ReplicaState>,
    /// The artefact that it serves.
    pub(super) artifact: Option<String>,
    /// The files of that.
    pub(super) files: Option<FoundFiles>,
}

impl Live {
    /// The content of a report.
    pub(super) fn of(report: SelfReport) -> Self {
        Self { tried: true, state: Some(report.state), artifact: report.artifact, files: report.files }
    }

    /// What is known about a process that does not answer.
    pub(super) fn unheard() -> Self {
        Self { tried: true, state: Some(ReplicaState::Starting), artifact: None, files: None }
    }
}

impl Watch {
    /// What is known now.
    pub(super) fn live(&self) -> Live {
        self.live.borrow().clone()
    }

    /// Whether the process predicts. Until it reports to us, the state that our predecessor recorded is used.
    pub(super) fn is_ready(&self, run: &Run) -> bool {
        match self.live.borrow().state {
            Some(state) => state == ReplicaState::Ready,
            None => run.was_ready(),
        }
    }

    /// Resolves after an attempt to reach the process, or when it is gone.
    pub(super) fn tried(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut live = self.live.clone();
        async move {
            // An error means that the watcher has ended: there is nothing to wait for.
            let _ = live.wait_for(|live| live.tried).await;
        }
    }
}
