//! The response cache of one version of one model: an equal request gets the earlier answer.
//!
//! Requests are equal if a cryptographic hash of everything that may change the answer is equal. Of several equal
//! requests at the same time, only the first one runs; the others wait for it. If it fails or its client disconnects,
//! nothing is shared: the next of them runs.
//!
//! **Invariants:** the cached answers use at most the configured memory. Only answers are cached, never errors. No lock
//! is held across an await.

mod key;
mod store;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use inference::Tensor;
use tokio::sync::watch;

pub(crate) use key::Key;
use store::{Kept, Store};

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: Store,
    /// The current runs, and the channels for those who wait for their answers.
    flights: HashMap<Key, watch::Receiver<Option<Kept>>>,
}

/// The source of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The cache, or the run of another request.
    Cache,
    /// The run of this request.
    Run,
}

impl Cache {
    /// A cache with at most this many bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: Mutex::new(State { store: Store::new(limit), flights: HashMap::new() }) }
    }

    /// The answer to the request with this key. `run` produces it if necessary.
    ///
    /// # Errors
    /// Only those of this request's own `run`.
    pub(crate) async fn answer<E>(
        &self,
        key: Key,
        run: impl Future<Output = Result<Vec<Tensor>, E>>,
    ) -> Result<(Vec<Tensor>, From), E> {
        loop {
            match self.look_up(key) {
                Found::Here(answer) => return Ok((answer.to_vec(), From::Cache)),
                Found::Coming(mut word) => {
                    // An error: the other run has no answer, and is gone. Then this request may be the next to run.
                    if let Ok(answer) = word.wait_for(Option::is_some).await
                        && let Some(answer) = answer.as_ref()
                    {
                        return Ok((answer.to_vec(), From::Cache));
                    }
                }
                Found::Nothing(flight) => {
                    let answer = run.await?;
                    flight.land(&answer);
                    return Ok((answer, From::Run));
                }
            }
        }
    }

    fn look_up(&self, key: Key) -> Found<'_> {
        let mut state = self.lock();
        if let Some(answer) = state.store.get(&key) {
            return Found::Here(answer);
        }
        if let Some(word) = state.flights.get(&key) {
            return Found::Coming(word.clone());
        }
        let (word, heard) = watch::channel(None);
        state.flights.insert(key, heard);
        Found::Nothing(Flight { cache: self, key, word })
    }

    /// Both maps change together, under this lock, in code that does not panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Found<'c> {
    Here(Kept),
    Coming(watch::Receiver<Option<Kept>>),
    Nothing(Flight<'c>),
}

/// A current run. However it ends, the next equal request does not wait for it.
struct Flight<'c> {
    cache: &'c Cache,
    key: Key,
    word: watch::Sender<Option<Kept>>,
}

impl Flight<'_> {
    /// Stores the answer, and passes it to those who wait.
    fn land(self, answer: &[Tensor]) {
        // The only receiver belongs to the table of runs.
        let waited_for = self.word.receiver_count() > 1;
        if !waited_for && !self.cache.lock().store.has_room_for(answer) {
            return;
        }
        // A copy whose vectors have no spare capacity.
        let kept = Arc::new(answer.to_vec());
        self.cache.lock().store.put(self.key, Arc::clone(&kept));
        self.word.send_replace(Some(kept));
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.cache.lock().flights.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Poll, Waker},
    };

    use inference::Data;
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;

    fn answer(mark: u8) -> Vec<Tensor> {
        vec![Tensor { name: "y".into(), shape: vec![1], data: Data::Uint8(vec![mark]) }]
    }

    type Answered = Result<(Vec<Tensor>, From), &'static str>;

    /// A request that waits for its run to be ended from outside, if it is run.
    struct Waiting<'c> {
        future: Pin<Box<dyn Future<Output = Answered> + 'c>>,
        end: Option<oneshot::Sender<Result<Vec<Tensor>, &'static str>>>,
        number: u8,
    }

    fn ask<'c>(cache: &'c Cache, number: u8, running: &'c [AtomicUsize]) -> Waiting<'c> {
        struct Counted<'c>(&'c AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let (end, ended) = oneshot::channel();
        let run = async move {
            let count = &running[usize::from(number)];
            let before = count.fetch_add(1, Ordering::SeqCst);
            let _counted = Counted(count);
            assert_eq!(before, 0, "two runs of one request at a time");
            ended.await.unwrap_or(Err("never ended"))
        };
        Waiting { future: Box::pin(cache.answer(Key::numbered(number), run)), end: Some(end), number }
    }

    fn poll(waiting: &mut Waiting<'_>) -> Option<Answered> {
        match waiting.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answered) => Some(answered),
            Poll::Pending => None,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(u8),
        /// The run of one of those who wait ends: with an answer or not.
        End(usize, bool),
        /// One of those who wait leaves.
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u8..4).prop_map(Step::Ask),
            2 => (any::<usize>(), any::<bool>()).prop_map(|(who, well)| Step::End(who, well)),
            1 => any::<usize>().prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn each_gets_its_own_answer_one_run_at_a_time_and_nobody_is_stranded(
            limit in prop_oneof![Just(0usize), Just(600), Just(100_000)],
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let cache = Cache::new(limit);
            let running: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
            let mut waiting: Vec<Waiting<'_>> = Vec::new();
            // At the end every run that begins ends well.
            for step in steps.into_iter().map(Some).chain(std::iter::repeat_n(None, 100)) {
                match step {
                    Some(Step::Ask(number)) => waiting.push(ask(&cache, number, &running)),
                    Some(Step::Leave(who)) if !waiting.is_empty() => {
                        let who = who % waiting.len();
                        waiting.swap_remove(who);
                    }
                    Some(Step::End(who, well)) if !waiting.is_empty() => {
                        let who = who % waiting.len();
                        let number = waiting[who].number;
                        if let Some(end) = waiting[who].end.take() {
                            end.send(if well { Ok(answer(number)) } else { Err("failed") }).ok();
                        }
                    }
                    Some(Step::End(..) | Step::Leave(_)) => {}
                    None => for one in &mut waiting {
                        if let Some(end) = one.end.take() {
                            end.send(Ok(answer(one.number))).ok();
                        }
                    },
                }
                let mut still = Vec::new();
                for mut one in waiting {
                    match poll(&mut one) {
                        None => still.push(one),
                        Some(Ok((made, _))) => prop_assert_eq!(made, answer(one.number)),
                        Some(Err(said)) => {
                            prop_assert_eq!(said, "failed");
                            prop_assert!(one.end.is_none(), "an error of another's run");
                        }
                    }
                }
                waiting = still;
            }
            prop_assert!(waiting.is_empty(), "{} wait for ever", waiting.len());
            prop_assert!(cache.lock().flights.is_empty());
        }
    }

    #[tokio::test]
    async fn an_answer_is_made_once_and_an_error_is_not_kept() {
        let cache = Cache::new(10_000);
        let key = Key::numbered(1);
        assert_eq!(cache.answer(key, async { Err("failed") }).await, Err("failed"));
        let made = cache.answer(key, async { Ok::<_, &str>(answer(1)) }).await;
        assert_eq!(made, Ok((answer(1), From::Run)));
        let again = cache.answer(key, async { Err::<Vec<Tensor>, _>("it is run again") }).await;
        assert_eq!(again, Ok((answer(1), From::Cache)));
    }
}
