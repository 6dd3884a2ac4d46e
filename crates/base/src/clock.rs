//! The time, as a value that is passed in.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// A clock. Loops hold one; pure code takes the time as a parameter.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Mutex<SystemTime>>>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stays at `start` until a test moves it. Clones move together.
    #[must_use]
    pub fn manual(start: SystemTime) -> Self {
        Self(Some(Arc::new(Mutex::new(start))))
    }

    /// The current time.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    pub fn now(&self) -> SystemTime {
        match &self.0 {
            None => SystemTime::now(),
            Some(time) => *time.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Moves a manual clock forward. The system clock cannot be moved.
    pub fn advance(&self, by: Duration) {
        if let Some(time) = &self.0 {
            *time.lock().unwrap_or_else(PoisonError::into_inner) += by;
        }
    }
}
