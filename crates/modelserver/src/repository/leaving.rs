//! Replaced or unloaded models that still have requests to answer.
//!
//! A request holds its model. When only this list holds a model, it can get no more requests: it is closed, its threads
//! end, and it is freed together with its files.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    repository::registry::{Held, Versions},
    run::model::Model,
};

/// Interval of checking whether the last request has ended: an `Arc` does not signal when its other holders are gone.
const LOOK: Duration = Duration::from_millis(10);

/// The list.
#[derive(Debug, Default)]
pub(super) struct Leaving(Mutex<Vec<Leaver>>);

#[derive(Debug)]
struct Leaver {
    model: Arc<Model>,
    _held: Arc<Held>,
}

impl Leaver {
    /// Whether it has ended; closes it when possible.
    fn has_left(&self) -> bool {
        if Arc::strong_count(&self.model) > 1 {
            return false;
        }
        self.model.close();
        self.model.has_ended()
    }
}

impl Leaving {
    /// Waits until these have ended.
    pub(super) async fn wait(&self, versions: Arc<Versions>) {
        let mine: Vec<_> = versions.models().iter().map(Arc::downgrade).collect();
        let leavers = versions.models().iter().map(|model| Leaver { model: Arc::clone(model), _held: versions.held() });
        self.lock().extend(leavers.collect::<Vec<_>>());
        drop(versions);
        while mine.iter().any(|model| model.strong_count() > 0) {
            tokio::time::sleep(LOOK).await;
            let gone: Vec<_> = self.lock().extract_if(.., |leaver| leaver.has_left()).collect();
            // Outside of the lock, because freeing a large model takes time.
            drop(gone);
        }
    }

    /// The models that have not ended yet.
    pub(super) fn all(&self) -> Vec<Arc<Model>> {
        self.lock().iter().map(|leaver| Arc::clone(&leaver.model)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Leaver>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
