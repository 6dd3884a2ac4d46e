//! The memory limit for bodies of requests and answers together.
//!
//! Memory is taken as the bytes of a request arrive, not for the announced length, and for an answer until the client
//! has read all of it. If there is none left, the requester is refused at once and returns what it has, so that bodies
//! that compete for the rest never wait for each other.
//!
//! Slow bodies do not keep memory from others: if there is none left, the body that has waited longest for its next 64
//! KiB is refused, if that took longer than [`SLOW`].
//!
//! A limit for each body alone would allow many of them to exhaust the machine. Small bodies are free, because the
//! number of connections limits them.

use std::{
    borrow::Borrow,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much of each body is free, and how much is taken at a time.
const STEP: usize = 64 << 10;

/// A body that takes longer than this for 64 KiB is slow.
const SLOW: Duration = Duration::from_secs(2);

/// The memory limit. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    steps: Arc<Semaphore>,
    bytes: usize,
    /// Arriving bodies that have taken memory.
    arriving: Arc<Mutex<Vec<Weak<Place>>>>,
}

/// An arriving body.
#[derive(Debug)]
pub(crate) struct Arriving<B = Budget> {
    budget: B,
    /// `None`: it has taken no memory yet.
    place: Option<Arc<Place>>,
}

/// The memory of an arriving body, as seen by those that need memory.
#[derive(Debug)]
struct Place {
    /// `None`: it was refused, and holds no memory.
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    hold: Hold,
    /// When it last took memory.
    since: Instant,
    /// Who waits for its refusal.
    waiting: Option<Waker>,
}

impl Place {
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an arriving body is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// There is no memory for it.
    #[error(transparent)]
    Spent(#[from] Spent),
    /// It is slow, and others needed its memory.
    #[error(
        "the body came too slowly, and others needed its part of the {0} bytes that are set aside for bodies (serve.bodies_limit_bytes): \
         send it faster"
    )]
    Slow(usize),
}

/// There is no memory for this body now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the bodies of other requests and answers fill the {0} bytes that are set aside for them (serve.bodies_limit_bytes): try again"
)]
pub(crate) struct Spent(usize);

/// The memory of one body; dropping it returns all of it.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    taken: Option<OwnedSemaphorePermit>,
    covered: usize,
}

/// Bytes of an answer, with their memory.
struct Kept {
    bytes: Bytes,
    _hold: Hold,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let steps = (bytes / STEP).clamp(1, Semaphore::MAX_PERMITS);
        Self { steps: Arc::new(Semaphore::new(steps)), bytes, arriving: Arc::default() }
    }

    /// A body of this size is free.
    pub(crate) const FREE: u64 = STEP as u64;

    /// Counts an answer until the last of its bytes is dropped.
    pub(crate) fn keep(&self, bytes: Bytes) -> Result<Bytes, Spent> {
        let mut hold = Hold::default();
        self.cover(&mut hold, bytes.len())?;
        Ok(if hold.covered == 0 { bytes } else { Bytes::from_owner(Kept { bytes, _hold: hold }) })
    }

    /// Grows or shrinks `hold` to a body of `size` bytes.
    pub(crate) fn cover(&self, hold: &mut Hold, size: usize) -> Result<(), Spent> {
        let missing = size.saturating_sub(STEP).saturating_sub(hold.covered);
        if missing == 0 {
            return Ok(());
        }
        let steps = missing.div_ceil(STEP);
        hold.add(self.take(steps)?, steps);
        Ok(())
    }

    /// A body that begins to arrive.
    pub(crate) fn arriving(&self) -> Arriving<&Self> {
        Arriving { budget: self, place: None }
    }

    /// The same for a body that is kept.
    pub(crate) fn arriving_owned(&self) -> Arriving {
        Arriving { budget: self.clone(), place: None }
    }

    /// Takes this many steps, from slow bodies if necessary.
    fn take(&self, steps: usize) -> Result<OwnedSemaphorePermit, Spent> {
        let count = u32::try_from(steps).map_err(|_| Spent(self.bytes))?;
        loop {
            match Arc::clone(&self.steps).try_acquire_many_owned(count) {
                Ok(taken) => return Ok(taken),
                Err(_) if self.refuse_slowest() => {}
                Err(_) => return Err(Spent(self.bytes)),
            }
        }
    }

    /// Refuses the slowest of the slow bodies. `false`: there is none.
    fn refuse_slowest(&self) -> bool {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        arriving.retain(|place| place.strong_count() > 0);
        let places = arriving.iter().filter_map(Weak::upgrade);
        let since = places.filter_map(|place| {
            let since = place.held().as_ref()?.since;
            (since.elapsed() >= SLOW).then_some((since, place))
        });
        let Some((_, slowest)) = since.min_by_key(|(since, _)| *since) else { return false };
        let held = slowest.held().take();
        if let Some(waiting) = held.and_then(|held| held.waiting) {
            waiting.wake();
        }
        true
    }
}

impl Hold {
    fn add(&mut self, more: OwnedSemaphorePermit, steps: usize) {
        self.covered += steps * STEP;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
    }
}

impl<B: Borrow<Budget>> Arriving<B> {
    /// Takes the memory for a body of `size` bytes.
    pub(crate) fn cover(&mut self, size: usize) -> Result<(), Refused> {
        let Some(paid) = size.checked_sub(STEP).filter(|paid| *paid > 0) else { return Ok(()) };
        let budget = self.budget.borrow();
        let slow = Refused::Slow(budget.bytes);
        let place = self.place.get_or_insert_with(|| {
            let held = Held { hold: Hold::default(), since: Instant::now(), waiting: None };
            let place = Arc::new(Place { held: Mutex::new(Some(held)) });
            let mut arriving = budget.arriving.lock().unwrap_or_else(PoisonError::into_inner);
            arriving.retain(|place| place.strong_count() > 0);
            arriving.push(Arc::downgrade(&place));
            place
        });
        let missing = match &mut *place.held() {
            None => return Err(slow),
            Some(held) if held.hold.covered >= paid => return Ok(()),
            Some(held) => {
                held.since = Instant::now();
                paid - held.hold.covered
            }
        };
        let steps = missing.div_ceil(STEP);
        let more = budget.take(steps)?;
        place.held().as_mut().ok_or(slow)?.hold.add(more, steps);
        Ok(())
    }

    /// Waits until it is refused.
    pub(crate) async fn refused(&self) -> Refused {
        poll_fn(|context| self.poll_refused(context)).await
    }

    /// The same for polling. Only the last caller is woken.
    pub(crate) fn poll_refused(&self, context: &Context<'_>) -> Poll<Refused> {
        let Some(place) = &self.place else { return Poll::Pending };
        match &mut *place.held() {
            None => Poll::Ready(Refused::Slow(self.budget.borrow().bytes)),
            Some(held) => {
                held.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The body has arrived: its memory is permanent from now on. The next one may arrive.
    pub(crate) fn complete(&mut self) -> Result<Hold, Refused> {
        let Some(place) = self.place.take() else { return Ok(Hold::default()) };
        let held = place.held().take();
        held.map(|held| held.hold).ok_or_else(|| Refused::Slow(self.budget.borrow().bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_the_budget_and_give_it_back() {
        let budget = Budget::new(4 * STEP);
        let (mut first, mut second) = (Hold::default(), Hold::default());
        assert_eq!(budget.cover(&mut first, STEP), Ok(()), "small bodies are free");
        assert_eq!(budget.steps.available_permits(), 4);
        for size in [STEP + 1, 2 * STEP, 3 * STEP] {
            assert_eq!(budget.cover(&mut first, size), Ok(()));
        }
        assert_eq!(budget.steps.available_permits(), 2);
        assert_eq!(budget.cover(&mut second, 4 * STEP), Err(Spent(4 * STEP)));
        drop(first);
        assert_eq!(budget.cover(&mut second, 4 * STEP), Ok(()));
    }

    #[tokio::test]
    async fn a_slow_body_gives_way_to_others_and_is_told_so() {
        let budget = Budget::new(4 * STEP);
        let bodies: Vec<_> = (0..2)
            .map(|_| {
                let mut body = budget.arriving();
                assert_eq!(body.cover(3 * STEP), Ok(()));
                body
            })
            .collect();
        let mut other = Hold::default();
        assert_eq!(budget.cover(&mut other, 3 * STEP), Err(Spent(4 * STEP)), "nobody is slow");
        let [mut first, mut second] = <[Arriving<&Budget>; 2]>::try_from(bodies).unwrap();
        for (body, seconds) in [(&first, 4), (&second, 3)] {
            body.place.as_ref().unwrap().held().as_mut().unwrap().since -= Duration::from_secs(seconds);
        }
        assert_eq!(budget.cover(&mut other, 3 * STEP), Ok(()));
        assert_eq!(first.refused().await, Refused::Slow(4 * STEP));
        assert_eq!(first.cover(4 * STEP), Err(Refused::Slow(4 * STEP)));
        assert_eq!(second.cover(3 * STEP), Ok(()), "one was enough");
        drop((first, other));
        // A complete body is no longer slow.
        let _whole = second.complete().unwrap();
        assert_eq!(budget.arriving().cover(4 * STEP), Err(Refused::Spent(Spent(4 * STEP))));
    }
}
