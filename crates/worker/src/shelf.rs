//! The memory of a worker from one pass over a deployment to the next. It holds only unsettled deployments, so that ten
//! thousand settled ones need no memory. It also prevents two tasks of this worker from processing the same deployment.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use api::{DeploymentId, Timestamp};
use prometheus_client::metrics::gauge::Gauge;

use crate::plan::Memory;

/// Entries by deployment.
#[derive(Debug)]
pub(crate) struct Shelf {
    notes: Mutex<HashMap<DeploymentId, Note>>,
    length: Gauge,
}

#[derive(Debug, Default)]
struct Note {
    memory: Option<Memory>,
    failures: u32,
    /// No pass is needed until this time, because a retry is scheduled for then.
    resting_until: Option<Timestamp>,
    in_hand: bool,
    /// A pass was requested during the current one.
    again: bool,
}

impl Shelf {
    /// An empty shelf; the gauge `length` shows its size.
    pub(crate) fn new(length: Gauge) -> Self {
        Self { notes: Mutex::default(), length }
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<DeploymentId, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: DeploymentId, change: impl FnOnce(&mut Note)) -> u32 {
        let mut notes = self.notes();
        let note = notes.entry(id).or_default();
        change(note);
        let failures = note.failures;
        if note.memory.is_none() && failures == 0 && !note.in_hand {
            notes.remove(&id);
        }
        self.length.set(i64::try_from(notes.len()).unwrap_or(i64::MAX));
        failures
    }

    /// Begins a pass over a deployment. `false` if one is running: another pass will follow it.
    pub(crate) fn take_in_hand(&self, id: DeploymentId) -> bool {
        let mut taken = false;
        self.change(id, |note| {
            taken = !note.in_hand;
            note.again = note.in_hand;
            note.in_hand = true;
        });
        taken
    }

    /// Ends a pass. `false` if another one was requested meanwhile: the deployment stays in progress.
    pub(crate) fn put_down(&self, id: DeploymentId) -> bool {
        let mut down = false;
        self.change(id, |note| {
            down = !note.again;
            note.in_hand = note.again;
            note.again = false;
        });
        down
    }

    /// The memory of a deployment.
    pub(crate) fn memory(&self, id: DeploymentId) -> Memory {
        self.notes().get(&id).and_then(|note| note.memory.clone()).unwrap_or_default()
    }

    /// Replaces the memory; `None` removes it.
    pub(crate) fn remember(&self, id: DeploymentId, memory: Option<Memory>) {
        self.change(id, |note| note.memory = memory);
    }

    /// Records a failed pass. Returns the number of consecutive failures.
    pub(crate) fn failed(&self, id: DeploymentId) -> u32 {
        self.change(id, |note| note.failures = note.failures.saturating_add(1))
    }

    /// The number of failed passes since the last success.
    pub(crate) fn failures(&self, id: DeploymentId) -> u32 {
        self.notes().get(&id).map_or(0, |note| note.failures)
    }

    /// When the next attempt at a failing deployment is due.
    pub(crate) fn rest(&self, id: DeploymentId, until: Timestamp) {
        self.change(id, |note| note.resting_until = Some(until));
    }

    /// Records a successful pass.
    pub(crate) fn succeeded(&self, id: DeploymentId) {
        self.change(id, |note| (note.failures, note.resting_until) = (0, None));
    }

    /// Whether the last pass over a deployment failed and its next attempt is still to come.
    pub(crate) fn is_resting(&self, id: DeploymentId, now: Timestamp) -> bool {
        self.notes().get(&id).is_some_and(|note| note.resting_until.is_some_and(|until| until > now))
    }

    /// Removes a deployment.
    pub(crate) fn forget(&self, id: DeploymentId) {
        self.change(id, |note| (note.memory, note.failures, note.resting_until) = (None, 0, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: DeploymentId = DeploymentId(1);

    #[test]
    fn a_look_that_is_asked_for_while_one_goes_on_comes_after_it() {
        let shelf = Shelf::new(Gauge::default());
        assert!(shelf.take_in_hand(ID));
        assert!(!shelf.take_in_hand(ID));
        assert!(!shelf.put_down(ID), "once more");
        assert!(shelf.put_down(ID));
        assert!(shelf.take_in_hand(ID));
    }

    #[test]
    fn nothing_is_kept_of_a_deployment_at_rest() {
        let shelf = Shelf::new(Gauge::default());
        shelf.take_in_hand(ID);
        assert_eq!(shelf.failed(ID), 1);
        shelf.rest(ID, Timestamp(10));
        assert!(shelf.is_resting(ID, Timestamp(9)) && !shelf.is_resting(ID, Timestamp(10)));
        shelf.succeeded(ID);
        assert!(shelf.put_down(ID));
        assert_eq!((shelf.notes().len(), shelf.length.get()), (0, 0));
    }
}
