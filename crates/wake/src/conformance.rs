//! What every way of hints must do, as suites that each implementation's tests call.
//!
//! A hint may be lost, so the suites publish again until it arrives, and bound how often hints come.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use api::DeploymentId;
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use tokio::time::{Instant, timeout};

use crate::WakeUps;

/// How long the suites wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one publishing may take, whatever the listeners do.
const PUBLISHING: Duration = Duration::from_secs(10);
/// How long a suite waits for one hint before it publishes again.
const AGAIN: Duration = Duration::from_millis(200);

/// A way of hints under test.
pub struct Subject {
    /// Handles on this one way, as two processes hold them.
    pub handles: [Arc<dyn WakeUps>; 2],
    /// Names of two workers that are in the database.
    pub workers: [String; 2],
    /// What must live as long as the handles.
    pub keeps: Option<Box<dyn Send>>,
}

impl Subject {
    /// One way that both processes share.
    #[must_use]
    pub fn of(way: Arc<dyn WakeUps>) -> Self {
        Self { handles: [way.clone(), way], workers: ["worker-1".to_owned(), "worker-2".to_owned()], keeps: None }
    }

    async fn publish(&self, ids: std::ops::Range<i64>) {
        let ids: Vec<_> = ids.map(DeploymentId).collect();
        let sent = timeout(PUBLISHING, self.handles[0].publish(&ids)).await.expect("publishing waits for nobody");
        sent.expect("the way is usable");
    }

    fn listen(&self, worker: usize) -> BoxStream<'static, DeploymentId> {
        self.handles[1].listen(&self.workers[worker])
    }

    /// Both workers, once hints reach each of them.
    async fn listeners(&self) -> [BoxStream<'static, DeploymentId>; 2] {
        let mut listeners = [self.listen(0), self.listen(1)];
        for listener in &mut listeners {
            let started = Instant::now();
            loop {
                self.publish(1_000..1_020).await;
                if timeout(AGAIN, listener.next()).await.is_ok() {
                    break;
                }
                assert!(started.elapsed() < PATIENCE, "no hint came within {PATIENCE:?}");
            }
        }
        // What was published for this must not be counted.
        for listener in &mut listeners {
            while timeout(AGAIN, listener.next()).await.is_ok() {}
        }
        listeners
    }
}

/// What holds even where no hint arrives.
///
/// # Panics
/// If the way breaks its contract.
pub async fn harmless(fresh: impl AsyncFn() -> Subject) {
    nobody_has_to_listen(fresh().await).await;
    a_listener_that_does_not_read_keeps_nobody(fresh().await).await;
    a_stream_does_not_end(fresh().await).await;
}

/// Everything that a way of hints must do; `fresh` makes a new one for each part.
///
/// # Panics
/// If the way breaks its contract.
pub async fn suite(fresh: impl AsyncFn() -> Subject) {
    harmless(&fresh).await;
    each_hint_goes_to_one_worker_and_usually_to_the_same(fresh().await).await;
    a_worker_that_left_keeps_no_hints_of_others(fresh().await).await;
}

async fn nobody_has_to_listen(way: Subject) {
    way.publish(0..0).await;
    way.publish(1..300).await;
}

async fn a_listener_that_does_not_read_keeps_nobody(way: Subject) {
    let _listeners = [way.listen(0), way.listen(1)];
    for first in 0..20 {
        way.publish(first * 1_000..(first + 1) * 1_000).await;
    }
}

async fn a_stream_does_not_end(way: Subject) {
    let mut listener = way.listen(0);
    drop(way);
    while let Ok(hint) = timeout(AGAIN, listener.next()).await {
        assert!(hint.is_some(), "a worker would have no hints any more");
    }
}

async fn each_hint_goes_to_one_worker_and_usually_to_the_same(way: Subject) {
    const IDS: i64 = 60;
    let mut listeners = way.listeners().await;
    let mut rounds = Vec::new();
    for _ in 0..2 {
        way.publish(1..1 + IDS).await;
        let mut heard = [BTreeSet::new(), BTreeSet::new()];
        for (listener, heard) in listeners.iter_mut().zip(&mut heard) {
            while let Ok(Some(id)) = timeout(AGAIN * 3, listener.next()).await {
                heard.insert(id);
            }
        }
        let [one, other] = &heard;
        assert!(one.is_disjoint(other), "a hint went to both workers: {one:?} and {other:?}");
        assert_eq!(one.len() + other.len(), 60, "both workers read, so no hint needs to be lost");
        assert!(one.len() >= 10 && other.len() >= 10, "each has its share: {} and {}", one.len(), other.len());
        rounds.push(heard);
    }
    assert_eq!(rounds[0], rounds[1], "the same workers are chosen while none comes or goes");
}

async fn a_worker_that_left_keeps_no_hints_of_others(way: Subject) {
    let [mut stays, leaves] = way.listeners().await;
    drop(leaves);
    let started = Instant::now();
    let mut heard = 0;
    while heard < 10 {
        assert!(started.elapsed() < PATIENCE, "only {heard} hints came within {PATIENCE:?}");
        way.publish(1..40).await;
        while stays.next().now_or_never().flatten().is_some() {
            heard += 1;
        }
        tokio::task::yield_now().await;
    }
}
