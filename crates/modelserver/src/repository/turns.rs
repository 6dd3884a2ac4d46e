//! Runs the orders for each model one after the other, and those for different models in parallel.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

/// The locks by name. A name is removed when nobody waits for it.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// A turn; dropping it passes the turn on.
#[derive(Debug)]
pub(super) struct Turn(#[allow(dead_code, reason = "held, never read")] OwnedMutexGuard<()>);

impl Turns {
    /// Waits until no other order for this name is running.
    pub(super) async fn of(&self, name: &str) -> Turn {
        let turn = {
            let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            names.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(names.entry(name.to_owned()).or_default())
        };
        Turn(turn.lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn orders_for_one_name_wait_for_one_another_and_other_names_do_not() {
        let turns = Turns::default();
        let first = turns.of("a").await;
        assert!(turns.of("b").now_or_never().is_some());
        let mut second = Box::pin(turns.of("a"));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.now_or_never().is_some());
        assert!(turns.of("c").now_or_never().is_some());
        assert_eq!(turns.0.lock().unwrap().len(), 1, "names that nobody waits for are forgotten");
    }
}
