//! One timer that many consecutive requests share.
//!
//! Setting a timer costs more than the rest of a small request. Deadlines nearly always pass unused, and the next one
//! is nearly always later than the last one. So the timer is left as it is: if it fires early, it is set to the current
//! deadline.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that can be moved cheaply.
#[derive(Debug)]
pub(crate) struct Alarm {
    due: Instant,
    armed: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    /// Fires at `due`.
    pub(crate) fn new(due: Instant) -> Self {
        Self { due, armed: due, sleep: Box::pin(sleep_until(due)) }
    }

    /// Moves it to `due`.
    pub(crate) fn set(&mut self, due: Instant) {
        self.due = due;
    }

    /// Moves it to `wait` from now.
    pub(crate) fn set_after(&mut self, wait: Duration) {
        self.due = Instant::now() + wait;
    }

    /// Resolves once it is due.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.armed > self.due {
            self.arm();
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= self.due {
                return Poll::Ready(());
            }
            self.arm();
        }
    }

    fn arm(&mut self) {
        self.armed = self.due;
        self.sleep.as_mut().reset(self.due);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_later_or_earlier_holds() {
        let start = Instant::now();
        let mut alarm = Alarm::new(start + Duration::from_secs(1));
        alarm.set(start + Duration::from_secs(5));
        poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 5, "moved later before it was armed");
        alarm.set_after(Duration::from_secs(30));
        assert!(tokio::time::timeout(Duration::from_secs(2), poll_fn(|cx| alarm.poll(cx))).await.is_err());
        alarm.set_after(Duration::from_secs(3));
        poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 10, "moved earlier while it was armed");
    }
}
