//! The report of this server about itself, and waiting for its changes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use api::{
    ReplicaId,
    replica::{ReplicaState, SelfReport, TerminationMessage},
    revision::FoundFiles,
};
use tokio::sync::watch;

use crate::error::ServeError;

/// Maximum wait for a change.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The state, the number of its changes, and what is served.
#[derive(Clone, Debug)]
struct Standing {
    seq: u64,
    state: ReplicaState,
    artifact: Option<String>,
    files: Option<FoundFiles>,
    /// Where they are on this machine.
    path: Option<PathBuf>,
    /// Nothing more will change: nobody is kept waiting.
    last: bool,
}

/// Waits for changes of the server's state or its models.
pub(crate) struct Changes(watch::Receiver<Standing>);

impl Changes {
    /// Returns after the next change; `false` if there will be no more.
    pub(crate) async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok() && !self.0.borrow_and_update().last
    }

    /// Returns once there will be no more changes.
    pub(crate) async fn last(mut self) {
        // Either way there will be none.
        let _ = self.0.wait_for(|standing| standing.last).await;
    }
}

/// Holds the state of this server.
#[derive(Debug)]
pub(crate) struct Reporter {
    replica: Option<ReplicaId>,
    standing: watch::Sender<Standing>,
}

impl Reporter {
    pub(crate) fn new(replica: Option<String>) -> Self {
        let standing =
            Standing { seq: 1, state: ReplicaState::Starting, artifact: None, files: None, path: None, last: false };
        Self { replica: replica.map(ReplicaId), standing: watch::Sender::new(standing) }
    }

    /// Sets the state of this server.
    pub(crate) fn set(&self, state: ReplicaState) {
        self.standing.send_modify(|standing| {
            standing.state = state;
            standing.seq += 1;
        });
    }

    /// Tells what is served, before it is ready; `path` is where it is on this machine.
    pub(crate) fn set_artifact(&self, artifact: String, files: Option<FoundFiles>, path: &Path) {
        self.standing.send_modify(|standing| {
            standing.artifact = Some(artifact);
            standing.files = files;
            standing.path = Some(path.to_owned());
            standing.seq += 1;
        });
    }

    /// The served files, once found.
    pub(crate) fn files(&self) -> Option<FoundFiles> {
        self.standing.borrow().files.clone()
    }

    /// The message of a server that cannot serve.
    pub(crate) fn termination(&self, error: &ServeError) -> TerminationMessage {
        let TerminationMessage { code, message, .. } = error.termination();
        TerminationMessage { code, message: self.name_the_address(message), files: self.files() }
    }

    /// Words with the address of a model in the place of the folder of the cache that holds its copy: a person looks there.
    fn name_the_address(&self, words: String) -> String {
        let standing = self.standing.borrow();
        let (Some(files), Some(path)) = (&standing.files, &standing.path) else { return words };
        words.replace(path.to_string_lossy().trim_end_matches('/'), files.uri.trim_end_matches('/'))
    }

    /// Answers everybody who waits for a change: no more will come, and a wait would hold up the end.
    pub(crate) fn close(&self) {
        self.standing.send_modify(|standing| standing.last = true);
    }

    /// Signals that the models have changed.
    pub(crate) fn models_changed(&self) {
        self.standing.send_modify(|_| {});
    }

    /// The changes from now on.
    pub(crate) fn changes(&self) -> Changes {
        Changes(self.standing.subscribe())
    }

    pub(crate) fn state(&self) -> ReplicaState {
        self.standing.borrow().state
    }

    /// The report; with `after`, once `seq` is greater, or after half a minute.
    pub(crate) async fn report(&self, after: Option<u64>) -> SelfReport {
        if let Some(after) = after {
            let mut changes = self.standing.subscribe();
            // Either way there is a report to give.
            let _ =
                tokio::time::timeout(LONGEST_WAIT, changes.wait_for(|standing| standing.last || standing.seq > after))
                    .await;
        }
        let Standing { seq, state, artifact, files, .. } = self.standing.borrow().clone();
        let usage = base::metrics::Usage::of_self();
        SelfReport {
            replica: self.replica.clone(),
            pid: std::process::id(),
            seq,
            state,
            artifact,
            files,
            cpu_micros: usage.cpu_micros,
            memory_bytes: usage.memory_bytes,
        }
    }
}
