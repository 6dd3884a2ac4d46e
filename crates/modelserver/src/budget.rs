//! The memory that bodies may take, those of requests and those of answers, all together.
//!
//! It is taken as the bytes of a request arrive, not for what a request says that will come, and for an answer until the
//! client has taken all of it. Where there is none, the one who needs it is refused at once and gives back what it has, so that
//! bodies which compete for the rest never wait for one another.
//!
//! A bound for one body alone would let many of them fill the machine. Small bodies, which connections are the
//! bound for, are free.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So much of each body is free, and so much at a time is taken.
const STEP: usize = 64 << 10;

/// The budget. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    steps: Arc<Semaphore>,
    bytes: usize,
}

/// There is no memory for this body now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the bodies of other requests and answers fill the {0} bytes that are set aside for them (serve.bodies_limit_bytes): try again"
)]
pub(crate) struct Spent(usize);

/// What one body has taken; dropping it gives all of it back.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    taken: Option<OwnedSemaphorePermit>,
    covered: usize,
}

/// Bytes of an answer, and what they hold.
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
        Self { steps: Arc::new(Semaphore::new(steps)), bytes }
    }

    /// A body of this size is free.
    pub(crate) const FREE: u64 = STEP as u64;

    /// Counts an answer until the last of its bytes is dropped.
    pub(crate) fn keep(&self, bytes: Bytes) -> Result<Bytes, Spent> {
        let mut hold = Hold::default();
        self.cover(&mut hold, bytes.len())?;
        Ok(if hold.covered == 0 { bytes } else { Bytes::from_owner(Kept { bytes, _hold: hold }) })
    }

    /// Makes `hold` cover a body of `size` bytes.
    pub(crate) fn cover(&self, hold: &mut Hold, size: usize) -> Result<(), Spent> {
        let missing = size.saturating_sub(STEP).saturating_sub(hold.covered);
        if missing == 0 {
            return Ok(());
        }
        let steps = missing.div_ceil(STEP);
        let spent = || Spent(self.bytes);
        let count = u32::try_from(steps).map_err(|_| spent())?;
        let more = Arc::clone(&self.steps).try_acquire_many_owned(count).map_err(|_| spent())?;
        hold.covered += steps * STEP;
        match &mut hold.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        Ok(())
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
}
