//! Remembers requests that crashed replicas: one that comes again is not retried, and does not run next to other
//! suspected requests.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a request is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Maximum number of remembered requests.
const MOST: usize = 64;

/// The requests that crashed replicas of one endpoint. Costs nothing until there is one.
#[derive(Debug, Default)]
pub(crate) struct FatalRequests(OnceLock<Box<Known>>);

#[derive(Debug, Default)]
struct Known {
    hasher: RandomState,
    requests: Mutex<VecDeque<(u64, Instant)>>,
}

impl FatalRequests {
    /// Remembers a request by its body; requests without a body cannot be distinguished.
    pub(crate) fn remember(&self, body: &[u8]) {
        if body.is_empty() {
            return;
        }
        let known = self.0.get_or_init(Box::default);
        let request = known.hasher.hash_one(body);
        let mut requests = known.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.retain(|(other, at)| *other != request && at.elapsed() < REMEMBERED);
        if requests.len() == MOST {
            requests.pop_front();
        }
        requests.push_back((request, Instant::now()));
    }

    /// Removes a request: it was answered.
    pub(crate) fn forget(&self, body: &[u8]) {
        let Some(known) = self.0.get() else { return };
        let request = known.hasher.hash_one(body);
        known.requests.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != request);
    }

    /// Whether this request crashed replicas recently.
    pub(crate) fn knows(&self, body: &[u8]) -> bool {
        let Some(known) = self.0.get() else { return false };
        // Removes expired entries, so that no later body is hashed without need.
        let remembers = || {
            let mut requests = known.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.retain(|(_, at)| at.elapsed() < REMEMBERED);
            !requests.is_empty()
        };
        if !remembers() {
            return false;
        }
        let request = known.hasher.hash_one(body);
        let requests = known.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().any(|(other, _)| *other == request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fatal_request_is_remembered_for_a_while_and_only_so_many() {
        let fatal = FatalRequests::default();
        assert!(!fatal.knows(b"x"));
        fatal.remember(b"x");
        fatal.remember(b"");
        assert!(fatal.knows(b"x") && !fatal.knows(b"y") && !fatal.knows(b""));
        fatal.forget(b"x");
        assert!(!fatal.knows(b"x"));
        fatal.remember(b"x");
        tokio::time::advance(REMEMBERED).await;
        assert!(!fatal.knows(b"x"));
        let kept = fatal.0.get().expect("made").requests.lock().expect("unpoisoned").len();
        assert_eq!(kept, 0, "no later body is hashed for it");
        for number in 0..=MOST {
            fatal.remember(&[u8::try_from(number).expect("few")]);
        }
        assert!(!fatal.knows(&[0]) && fatal.knows(&[1]));
    }
}
